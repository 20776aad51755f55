//! Numbers as people read them in a job log.

use std::fmt;
use std::time::Duration;

/// A number of bytes, shown in binary units: `512 B`, `30.0 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let exponent = self.0.ilog2() / 10;
        let unit = UNITS[exponent as usize - 1];
        // In tenths, so that it is exact: 1023.96 MiB must not become 1024.0 MiB by rounding.
        let tenths = (u128::from(self.0) * 10) >> (10 * exponent);
        write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Bytes in a time, shown in decimal megabytes a second as network and storage are rated: `85.3 MB/s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    bytes: u64,
    time: Duration,
}

impl Rate {
    /// `bytes` in `time`.
    #[must_use]
    pub fn new(bytes: u64, time: Duration) -> Self {
        Self { bytes, time }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.time.as_micros().max(1);
        // Bytes per microsecond are megabytes per second.
        let tenths = u128::from(self.bytes) * 10 / micros;
        write!(f, "{}.{} MB/s", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (30 << 30, "30.0 GiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn rates_are_finite() {
        assert_eq!(
            Rate::new(85_300_000, Duration::from_secs(1)).to_string(),
            "85.3 MB/s"
        );
        assert_eq!(Rate::new(0, Duration::ZERO).to_string(), "0.0 MB/s");
    }
}
