//! Java regular expressions for VM names.
//!
//! A pattern is read by the rules of `java.util.regex.Pattern` (API documentation of Java SE 21) and written again for the
//! `regex` crate, construct by construct, such that both accept the same names. What cannot be written so, or what Java
//! versions read differently, is refused by name: an expression is never read as something else than the user meant.
//! Written out here are Java's defaults, which are narrower than those of the crate: `\d`, `\w`, `\s` and case folding
//! know ASCII only, and `.` stops at five line ends.

use regex::Regex;

use super::java_regex::{Refusal, translate};

/// A regular expression in Java's syntax that must match a whole name.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    whole: Regex,
    part: Regex,
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is wrong in Java, or means something that this version cannot do.
    #[error("regular expression {text}: {problem} (character {position})")]
    Refused {
        /// The pattern.
        text: String,
        /// What is wrong.
        problem: String,
        /// Where, in characters from 1.
        position: usize,
    },
    /// Its repetitions multiply to more than can be kept in memory.
    #[error("regular expression {0}: it is too large")]
    TooLarge(String),
}

impl NamePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// An expression that is wrong in Java, or that means something this version cannot do: look-around, atomic groups,
    /// possessive quantifiers, back-references, `\p{...}`, `\b`, classes within classes, flags other than `i`.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let refused = |Refusal { problem, at }| PatternError::Refused {
            text: text.to_owned(),
            problem,
            position: text[..at].chars().count() + 1,
        };
        let translated = translate(text).map_err(refused)?;
        // What is left to go wrong is the size of the compiled expression.
        let compile = |translated: &str| {
            Regex::new(translated).map_err(|_size| PatternError::TooLarge(text.to_owned()))
        };
        Ok(Self {
            text: text.to_owned(),
            whole: compile(&format!(r"\A(?:{translated})\z"))?,
            part: compile(&translated)?,
        })
    }

    /// Whether the whole `name` matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.whole.is_match(name)
    }

    /// Whether some part of `name` matches: a hint for users who expected a search.
    #[must_use]
    pub fn is_found_in(&self, name: &str) -> bool {
        self.part.is_match(name)
    }

    /// As the user wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_names_match_as_in_java() {
        // Pattern, names that match, names that do not.
        let table: [(&str, &[&str], &[&str]); 40] = [
            ("web", &["web"], &["web1", "aweb", "WEB", ""]),
            ("(.*)web(.*)", &["web", "my-web-1"], &["we-b", "WEB"]),
            ("^old(.*)", &["old", "old.web"], &["an-old"]),
            ("(.*)old$", &["old", "an-old"], &["older"]),
            ("a|bc|", &["a", "bc", ""], &["abc", "ac"]),
            (
                "a.c",
                &["abc", "a-c", "aäc", "a😀c"],
                &["ac", "a\nc", "a\u{2028}c", "a\u{85}c"],
            ),
            (r"a\.c", &["a.c"], &["abc"]),
            ("[abc]+", &["a", "cab"], &["", "d"]),
            ("[^a-c]", &["d", "-", "ä"], &["a", "b", "de"]),
            ("[-a]", &["-", "a"], &["b"]),
            ("[a-]", &["-", "a"], &["b"]),
            ("[a-c-]", &["-", "b"], &["d"]),
            (r"[\]\[\^\-\\]", &["]", "[", "^", "-", "\\"], &["a"]),
            ("[a^]", &["a", "^"], &["b"]),
            (
                "[.*+?(){}|$]",
                &[".", "*", "+", "?", "(", ")", "{", "}", "|", "$"],
                &["a", "\\"],
            ),
            ("[a~~b]", &["a", "~", "b"], &["c"]),
            ("[a&b]", &["a", "&", "b"], &["c"]),
            (r"[\w.-]+", &["web-1.a_B"], &["a b", "ä"]),
            (r"[^\w]", &["-", "ä"], &["a", "_", "9"]),
            (r"[^\d.]", &["a"], &["1", "."]),
            (r"[\D]", &["a"], &["1"]),
            (r"\d\D\w\W\s\S", &["1aa- a"], &["١aa- a", "1aaa a"]),
            (r"\w+", &["Web_1"], &["wéb", "a-b"]),
            ("x{2}", &["xx"], &["x", "xxx"]),
            ("x{2,}", &["xx", "xxx"], &["x"]),
            ("x{0,1}y", &["y", "xy"], &["xxy"]),
            ("a+?b*?c??", &["a", "aabbc"], &["b"]),
            ("(?:ab)+", &["ab", "abab"], &["aba"]),
            ("(?<name>ab)c", &["abc"], &["ab"]),
            ("(a|ab)(c|bcd)(d*)", &["abcd", "acd", "abcdd"], &["ab"]),
            ("(?i)web", &["web", "WEB", "wEb"], &["we"]),
            ("(?i)k[a-c]", &["KB", "kb"], &["\u{212a}b", "kd"]),
            ("(?i)[^a]", &["b"], &["a", "A"]),
            (
                "(?i)[X-c]",
                &["X", "x", "y", "A", "a", "C", "_"],
                &["d", "w", "W"],
            ),
            ("a(?i)b|c", &["aB", "ab", "c", "C"], &["Ab"]),
            ("(a(?i)b)c", &["aBc"], &["aBC"]),
            ("(?i:a)b(?i)(?-i:c)", &["Abc"], &["AbC", "ABc"]),
            (r"\Qa.b\E+c", &["a.bbc"], &["a.ba.bc", "axbc"]),
            (r"(?i)\Qa[", &["A[", "a["], &["ab"]),
            (r"\x41\u0042\t\*\ä", &["AB\t*ä"], &["AB\tä"]),
        ];
        for (text, matching, others) in table {
            let pattern = NamePattern::new(text).unwrap_or_else(|error| panic!("{error}"));
            for name in matching {
                assert!(pattern.matches(name), "{text} must match {name:?}");
            }
            for name in others {
                assert!(!pattern.matches(name), "{text} must not match {name:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_its_place() {
        let table = [
            ("a(?=b)", "look-ahead is not supported (character 2)"),
            ("(?!b)a", "look-ahead is not supported (character 1)"),
            ("(?<=b)a", "look-behind is not supported (character 1)"),
            ("ä(?<!b)a", "look-behind is not supported (character 2)"),
            ("(?>b)", "atomic groups are not supported (character 1)"),
            (
                "a*+",
                "possessive quantifiers are not supported (character 3)",
            ),
            (
                "a{2}+",
                "possessive quantifiers are not supported (character 5)",
            ),
            (r"(a)\1", "back-references are not supported (character 4)"),
            (
                r"(?<x>a)\k<x>",
                "back-references are not supported (character 8)",
            ),
            (
                r"\p{L}",
                "character properties are not supported (character 1)",
            ),
            (
                r"[\p{L}]",
                "character properties are not supported (character 2)",
            ),
            (
                r"\bweb",
                "word boundaries are not supported (Java versions differ in them) (character 1)",
            ),
            (r"\Rx", r"escape \R is not supported (character 1)"),
            (r"\012", r"escape \0 is not supported (character 1)"),
            (r"\x4", "expected 2 hexadecimal digits (character 1)"),
            (r"\ud83d", "surrogates are not supported (character 1)"),
            ("a\\", "nothing follows the backslash (character 2)"),
            (
                "(?m)a",
                "only the flag i is supported in a group that begins with (? (character 1)",
            ),
            (
                "(?x:a)",
                "only the flag i is supported in a group that begins with (? (character 1)",
            ),
            (
                "[a[b]]",
                r"classes within classes are not supported (\[ is a bracket) (character 3)",
            ),
            (
                "[a&&b]",
                r"intersections of classes are not supported (\& is an ampersand) (character 3)",
            ),
            (
                "[]a]",
                r"a class is empty, or needs \] instead of ] (character 2)",
            ),
            (
                "[]",
                r"a class is empty, or needs \] instead of ] (character 2)",
            ),
            (
                "[a-c-e]",
                r"a range has no beginning (\- is a minus sign) (character 5)",
            ),
            (
                r"[\d-x]",
                r"a range has no beginning (\- is a minus sign) (character 4)",
            ),
            (r"[a-\d]", "a range ends in a set (character 3)"),
            ("[c-a]", "range c-a is reversed (character 2)"),
            ("[a--]", r"a range ends in - (write \-) (character 3)"),
            ("[abc", "class is not closed (character 1)"),
            ("(a", "parenthesis is not closed (character 1)"),
            (
                "a)",
                "closing parenthesis without an opening one (character 2)",
            ),
            ("*web", "nothing to repeat before * (character 1)"),
            ("a|+", "nothing to repeat before + (character 3)"),
            ("(?i)*", "nothing to repeat before * (character 5)"),
            ("a**", "quantifier * follows a quantifier (character 3)"),
            ("a{2}{3}", "quantifier { follows a quantifier (character 5)"),
            ("a{,3}", "expected {n}, {n,} or {n,m} (character 2)"),
            ("a{3,2}", "expected {n}, {n,} or {n,m} (character 2)"),
            ("a{x}", "expected {n}, {n,} or {n,m} (character 2)"),
            ("a{1", "expected {n}, {n,} or {n,m} (character 2)"),
            ("((a{999}){999}){999}", "it is too large"),
        ];
        for (text, problem) in table {
            let error = NamePattern::new(text).expect_err(text).to_string();
            assert_eq!(error, format!("regular expression {text}: {problem}"));
        }
    }

    #[test]
    fn a_search_is_only_a_hint() {
        let pattern = NamePattern::new("web").unwrap();
        assert!(!pattern.matches("web01") && pattern.is_found_in("web01"));
        assert!(!pattern.is_found_in("db01"));
        assert_eq!(pattern.as_str(), "web");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn quoted_text_matches_itself_and_nothing_else(text in "\\PC{0,12}", other in "\\PC{0,12}") {
            prop_assume!(!text.contains('\\'));
            let quoted = NamePattern::new(&format!(r"\Q{text}\E")).unwrap();
            prop_assert!(quoted.matches(&text));
            prop_assert_eq!(quoted.matches(&other), text == other);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-a-cA-C\\[\\](){}^$.|*+?\\\\&,:<>=!idwQE0-9ä]{0,16}") {
            if let Ok(pattern) = NamePattern::new(&text) {
                // Whatever matches whole is found, too.
                prop_assert!(!pattern.matches("abc") || pattern.is_found_in("abc"));
            }
        }
    }
}
