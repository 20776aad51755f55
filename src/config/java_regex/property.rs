//! Named sets: `\d`, `\p{Alpha}`, `\p{IsLatin}`, `\p{InGreek}` and their like.
//!
//! By default Java's named sets of ASCII stay in ASCII; with the flag `U` they are Unicode's. Categories and scripts
//! follow the Unicode version of the crate `regex-syntax`, which is newer than Java's: characters that were added since
//! have no place in a VM name.

use regex_syntax::Parser;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::Set;

/// General categories that have the same name, and the same meaning, in both worlds. `Cs` has no character here.
const CATEGORIES: [&str; 36] = [
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Me", "Mc", "Nd", "Nl", "No", "Zs", "Zl", "Zp", "Cc",
    "Cf", "Co", "Pd", "Ps", "Pe", "Pc", "Po", "Sm", "Sc", "Sk", "So", "Pi", "Pf", "L", "M", "N",
    "Z", "P", "S", "C",
];

/// Scripts by name and by code (ISO 15924).
const SCRIPTS: [(&str, &str); 18] = [
    ("ARABIC", "ARAB"),
    ("ARMENIAN", "ARMN"),
    ("BENGALI", "BENG"),
    ("COMMON", "ZYYY"),
    ("CYRILLIC", "CYRL"),
    ("DEVANAGARI", "DEVA"),
    ("ETHIOPIC", "ETHI"),
    ("GEORGIAN", "GEOR"),
    ("GREEK", "GREK"),
    ("HAN", "HANI"),
    ("HANGUL", "HANG"),
    ("HEBREW", "HEBR"),
    ("HIRAGANA", "HIRA"),
    ("INHERITED", "ZINH"),
    ("KATAKANA", "KANA"),
    ("LATIN", "LATN"),
    ("TAMIL", "TAML"),
    ("THAI", "THAI"),
];

/// Blocks: first and last character, and the names that Java takes, in upper case.
const BLOCKS: [(char, char, &[&str]); 11] = [
    ('\0', '\x7f', &["BASIC LATIN", "BASICLATIN", "BASIC_LATIN"]),
    (
        '\u{80}',
        '\u{ff}',
        &[
            "LATIN-1 SUPPLEMENT",
            "LATIN-1SUPPLEMENT",
            "LATIN_1_SUPPLEMENT",
        ],
    ),
    (
        '\u{100}',
        '\u{17f}',
        &["LATIN EXTENDED-A", "LATINEXTENDED-A", "LATIN_EXTENDED_A"],
    ),
    (
        '\u{180}',
        '\u{24f}',
        &["LATIN EXTENDED-B", "LATINEXTENDED-B", "LATIN_EXTENDED_B"],
    ),
    (
        '\u{370}',
        '\u{3ff}',
        &["GREEK AND COPTIC", "GREEKANDCOPTIC", "GREEK"],
    ),
    ('\u{400}', '\u{4ff}', &["CYRILLIC"]),
    ('\u{530}', '\u{58f}', &["ARMENIAN"]),
    ('\u{590}', '\u{5ff}', &["HEBREW"]),
    ('\u{600}', '\u{6ff}', &["ARABIC"]),
    ('\u{3040}', '\u{309f}', &["HIRAGANA"]),
    ('\u{30a0}', '\u{30ff}', &["KATAKANA"]),
];

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Property {
    Set(Set),
    /// It is about upper or lower case: Java versions differ in what the flag `i` makes of it.
    Cased(Set),
}

/// A set of these ranges.
pub(super) fn ranges(ranges: &[(char, char)]) -> Set {
    ClassUnicode::new(
        ranges
            .iter()
            .map(|(low, high)| ClassUnicodeRange::new(*low, *high)),
    )
}

/// `\d`, `\h`, `\s`, `\v`, `\w`, by their lower-case letter.
pub(super) fn escape(letter: char, unicode: bool) -> Option<Set> {
    Some(match (letter, unicode) {
        ('d', false) => posix("Digit")?,
        ('d', true) => unicode_set(r"\p{Nd}")?,
        ('s', false) => posix("Space")?,
        ('s', true) => unicode_set(r"\p{White_Space}")?,
        ('w', false) => ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        ('w', true) => word()?,
        ('h', _) => ranges(&[
            ('\t', '\t'),
            (' ', ' '),
            ('\u{a0}', '\u{a0}'),
            ('\u{1680}', '\u{1680}'),
            ('\u{180e}', '\u{180e}'),
            ('\u{2000}', '\u{200a}'),
            ('\u{202f}', '\u{202f}'),
            ('\u{205f}', '\u{205f}'),
            ('\u{3000}', '\u{3000}'),
        ]),
        ('v', _) => ranges(&[('\n', '\r'), ('\u{85}', '\u{85}'), ('\u{2028}', '\u{2029}')]),
        _ => return None,
    })
}

/// What stands between the braces of `\p{...}`; `None` if it is not known here.
pub(super) fn property(name: &str, unicode: bool) -> Option<Property> {
    if let Some((key, value)) = name.split_once('=') {
        return match key.to_ascii_lowercase().as_str() {
            "sc" | "script" => script(value),
            "blk" | "block" => block(value),
            "gc" | "general_category" => category(value),
            _ => None,
        };
    }
    if let Some(name) = name.strip_prefix("In") {
        return block(name);
    }
    if let Some(name) = name.strip_prefix("Is") {
        return binary(name)
            .or_else(|| category(name))
            .or_else(|| script(name));
    }
    let named = if unicode {
        unicode_posix(name)
    } else {
        match name {
            "Lower" | "Upper" => posix(name).map(Property::Cased),
            _ => posix(name).map(Property::Set),
        }
    };
    named.or_else(|| category(name)).or_else(|| java(name))
}

fn posix(name: &str) -> Option<Set> {
    Some(ranges(match name {
        "ASCII" => &[('\0', '\x7f')],
        "Alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "Alpha" => &[('A', 'Z'), ('a', 'z')],
        "Blank" => &[('\t', '\t'), (' ', ' ')],
        "Cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "Digit" => &[('0', '9')],
        "Graph" => &[('!', '~')],
        "Lower" => &[('a', 'z')],
        "Print" => &[(' ', '~')],
        "Punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "Space" => &[('\t', '\r'), (' ', ' ')],
        "Upper" => &[('A', 'Z')],
        "XDigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    }))
}

/// The same names under the flag `U`, as far as both worlds agree on them.
fn unicode_posix(name: &str) -> Option<Property> {
    let plain = |text| unicode_set(text).map(Property::Set);
    match name {
        "ASCII" => posix(name).map(Property::Set),
        "Alpha" => plain(r"\p{Alphabetic}"),
        "Alnum" => plain(r"[\p{Alphabetic}\p{Nd}]"),
        "Digit" => plain(r"\p{Nd}"),
        "Space" => plain(r"\p{White_Space}"),
        "Punct" => plain(r"\p{P}"),
        "Cntrl" => plain(r"\p{Cc}"),
        "Lower" => unicode_set(r"\p{Lowercase}").map(Property::Cased),
        "Upper" => unicode_set(r"\p{Uppercase}").map(Property::Cased),
        _ => None,
    }
}

/// Binary properties, in any case.
fn binary(name: &str) -> Option<Property> {
    let plain = |text| unicode_set(text).map(Property::Set);
    match name.to_ascii_uppercase().as_str() {
        "ALPHABETIC" => plain(r"\p{Alphabetic}"),
        "ASSIGNED" => plain(r"\P{Cn}"),
        "CONTROL" => plain(r"\p{Cc}"),
        "IDEOGRAPHIC" => plain(r"\p{Ideographic}"),
        "LETTER" => plain(r"\p{L}"),
        "PUNCTUATION" => plain(r"\p{P}"),
        "WHITESPACE" | "WHITE_SPACE" => plain(r"\p{White_Space}"),
        "LOWERCASE" => unicode_set(r"\p{Lowercase}").map(Property::Cased),
        "TITLECASE" => unicode_set(r"\p{Lt}").map(Property::Cased),
        "UPPERCASE" => unicode_set(r"\p{Uppercase}").map(Property::Cased),
        _ => None,
    }
}

fn category(name: &str) -> Option<Property> {
    match name {
        "Lu" | "Ll" | "Lt" => unicode_set(&format!(r"\p{{{name}}}")).map(Property::Cased),
        "LC" => unicode_set(r"[\p{Lu}\p{Ll}\p{Lt}]").map(Property::Set),
        "LD" => unicode_set(r"[\p{L}\p{Nd}]").map(Property::Set),
        "L1" => Some(Property::Set(ranges(&[('\0', '\u{ff}')]))),
        "all" => Some(Property::Set(ranges(&[('\0', char::MAX)]))),
        _ if CATEGORIES.contains(&name) => {
            unicode_set(&format!(r"\p{{{name}}}")).map(Property::Set)
        }
        _ => None,
    }
}

fn java(name: &str) -> Option<Property> {
    let plain = |text| unicode_set(text).map(Property::Set);
    match name {
        "javaAlphabetic" => plain(r"\p{Alphabetic}"),
        "javaDigit" => plain(r"\p{Nd}"),
        "javaLetter" => plain(r"\p{L}"),
        "javaLetterOrDigit" => plain(r"[\p{L}\p{Nd}]"),
        "javaLowerCase" => unicode_set(r"\p{Lowercase}").map(Property::Cased),
        "javaUpperCase" => unicode_set(r"\p{Uppercase}").map(Property::Cased),
        _ => None,
    }
}

fn script(name: &str) -> Option<Property> {
    let name = name.to_ascii_uppercase();
    let (long, _) = SCRIPTS
        .iter()
        .find(|(long, code)| *long == name || *code == name)?;
    unicode_set(&format!(r"\p{{Script={long}}}")).map(Property::Set)
}

fn block(name: &str) -> Option<Property> {
    let name = name.to_ascii_uppercase();
    let (low, high, _) = BLOCKS
        .iter()
        .find(|(_, _, names)| names.contains(&name.as_str()))?;
    Some(Property::Set(ranges(&[(*low, *high)])))
}

fn word() -> Option<Set> {
    unicode_set(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")
}

/// A set in the syntax of `regex-syntax`.
fn unicode_set(text: &str) -> Option<Set> {
    let parsed = Parser::new().parse(text).ok()?.into_kind();
    // A set of one character becomes that character.
    if let HirKind::Literal(literal) = &parsed {
        let c = str::from_utf8(&literal.0).ok()?.parse().ok()?;
        return Some(ranges(&[(c, c)]));
    }
    let HirKind::Class(Class::Unicode(set)) = parsed else {
        return None;
    };
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_tables_is_known() {
        for name in CATEGORIES {
            assert!(property(name, false).is_some(), "{name}");
        }
        for (name, code) in SCRIPTS {
            let of = |name: &str| match property(&format!("Is{name}"), false) {
                Some(Property::Set(set)) => set,
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(of(name), of(code));
        }
        for letter in ['d', 's', 'w', 'h', 'v'] {
            assert!(escape(letter, false).is_some() && escape(letter, true).is_some());
        }
        let names = [
            "IsAlphabetic",
            "IsAssigned",
            "IsControl",
            "IsIdeographic",
            "IsLetter",
            "IsPunctuation",
            "IsWhite_Space",
            "IsLowercase",
            "IsTitlecase",
            "IsUppercase",
            "javaAlphabetic",
            "javaDigit",
            "javaLetter",
            "javaLetterOrDigit",
            "javaLowerCase",
            "javaUpperCase",
            "Alpha",
            "Alnum",
            "Punct",
            "Cntrl",
            "Lower",
            "Upper",
            "LC",
            "LD",
        ];
        for name in names {
            assert!(property(name, true).is_some(), "{name}");
        }
        assert!(property("Latin", false).is_none() && property("IsLat in", false).is_none());
    }
}
