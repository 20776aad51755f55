//! Sizes as a scenario file writes them: a number of bytes, or text with a binary unit.
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// One kibibyte in bytes.
pub const KIB: u64 = 1 << 10;
/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
/// One gibibyte in bytes.
pub const GIB: u64 = 1 << 30;
/// One tebibyte in bytes.
pub const TIB: u64 = 1 << 40;

/// A number of bytes; in JSON a number, or text such as `"64GiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    fn parse(text: &str) -> Option<Self> {
        let digits = text
            .trim_end_matches(|c: char| c.is_ascii_alphabetic())
            .len();
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "" | "B" => 1,
            "KiB" => KIB,
            "MiB" => MIB,
            "GiB" => GIB,
            "TiB" => TIB,
            _ => return None,
        };
        number
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(unit)
            .map(Self)
    }
}

impl From<u64> for ByteSize {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number of bytes, or text with KiB, MiB, GiB or TiB such as \"64GiB\"",
                )
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(value))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_binary_and_anything_else_is_refused() {
        assert_eq!(ByteSize::parse("64GiB"), Some(ByteSize(64 * GIB)));
        assert_eq!(ByteSize::parse("512"), Some(ByteSize(512)));
        assert_eq!(ByteSize::parse("4 TiB"), Some(ByteSize(4 * TIB)));
        for wrong in ["64GB", "GiB", "-1", "1.5GiB", "99999999TiB"] {
            assert_eq!(ByteSize::parse(wrong), None, "{wrong}");
        }
    }
}
