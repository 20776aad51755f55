//! Java regular expressions for VM names.
//!
//! A pattern is read by the rules of `java.util.regex.Pattern` and written again, construct by construct, such that an
//! engine of this language accepts the same names (`java_regex`). The engine is that of the crate `regex`, whose time
//! grows with the length of the name only; look-around, back-references, possessive and atomic groups need the
//! backtracking of `fancy-regex`, which gives up after a number of steps. An expression is never read as something else
//! than Java would: what differs is refused, when the pattern is read or, at the latest, when a name shows the difference.

use std::fmt;

use fancy_regex::RegexBuilder as BacktrackingBuilder;
use regex::{Regex, RegexBuilder};

use super::java_regex::{Needs, Refusal, parse};

/// Bytes that a compiled expression may take, for each engine and piece.
const LARGEST: usize = 4 * 1024 * 1024;
/// Steps back for one name: about a tenth of a second, since a subscription may have thousands of names. Patterns that people
/// write need a few dozen.
const MOST_BACKTRACKING: usize = 100_000;

/// A regular expression in Java's syntax that must match a whole name.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    whole: Engine,
    part: Engine,
    needs: Needs,
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
    /// It cannot be compiled within the memory that is allowed.
    #[error("regular expression {text}: {problem}")]
    TooLarge {
        /// The pattern.
        text: String,
        /// What is too large.
        problem: &'static str,
    },
}

/// Why a pattern has no verdict on a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("regular expression {pattern}, name {name}: {problem}")]
pub struct MatchError {
    /// The pattern.
    pub pattern: String,
    /// The name.
    pub name: String,
    /// What is in the way, and what to do.
    pub problem: &'static str,
}

impl NamePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// An expression that is wrong in Java, that Java versions read differently, or that is not supported here; with the
    /// construct and its place.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let refused = |Refusal { problem, at }| PatternError::Refused {
            text: text.to_owned(),
            problem,
            position: text[..at].chars().count() + 1,
        };
        let pattern = parse(text).map_err(refused)?;
        let part = pattern.write();
        let compile = |expression: &str| {
            let engine = if pattern.is_regular() {
                Engine::linear(expression)
            } else {
                Engine::backtracking(expression)
            };
            engine.map_err(|problem| PatternError::TooLarge {
                text: text.to_owned(),
                problem,
            })
        };
        Ok(Self {
            text: text.to_owned(),
            whole: compile(&format!(r"\A(?:{part})\z"))?,
            part: compile(&part)?,
            needs: pattern.needs,
        })
    }

    /// Whether the whole `name` matches.
    ///
    /// # Errors
    ///
    /// It takes too many steps to tell, or Java versions differ on such a name.
    pub fn matches(&self, name: &str) -> Result<bool, MatchError> {
        let undecided = |problem| MatchError {
            pattern: self.text.clone(),
            name: name.to_owned(),
            problem,
        };
        let ends_line = |c| matches!(c, '\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        if self.needs.ascii && !name.is_ascii() {
            return Err(undecided(
                r"Java versions differ in \b and \B beside letters beyond ASCII: write the expression without them",
            ));
        }
        if self.needs.one_line && (name.is_empty() || name.contains(ends_line)) {
            return Err(undecided(
                "^ and $ have no clear meaning in a name that is empty or has several lines",
            ));
        }
        self.whole.is_match(name).map_err(undecided)
    }

    /// Whether some part of `name` matches: a hint for users who expected a search.
    #[must_use]
    pub fn is_found_in(&self, name: &str) -> bool {
        self.part.is_match(name).unwrap_or(false)
    }

    /// An expression that matches every name in which this one is found.
    #[must_use]
    pub fn anywhere(&self) -> String {
        let text = &self.text;
        // An alternative or a number of a group would mean something else behind `(.*)`.
        if text.contains(['|', '(', '\\']) {
            format!(".*(?:{text}).*")
        } else {
            format!("(.*){text}(.*)")
        }
    }
}

/// As the user wrote it.
impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What decides.
#[derive(Clone, Debug)]
enum Engine {
    Linear(Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

impl Engine {
    /// What was read is valid; what is left to go wrong is the size of the compiled expression.
    fn linear(expression: &str) -> Result<Self, &'static str> {
        RegexBuilder::new(expression)
            .size_limit(LARGEST)
            .build()
            .map(Self::Linear)
            .map_err(|_size| "its repetitions multiply to more than is allowed")
    }

    fn backtracking(expression: &str) -> Result<Self, &'static str> {
        BacktrackingBuilder::new(expression)
            .delegate_size_limit(LARGEST)
            .delegate_dfa_size_limit(LARGEST)
            .max_prog_size(LARGEST / 64)
            .backtrack_limit(MOST_BACKTRACKING)
            .optimize(false)
            .seek(false)
            .build()
            .map(|regex| Self::Backtracking(Box::new(regex)))
            .map_err(|_size| {
                "its repetitions multiply to more than is allowed, or its look-behinds are too complex"
            })
    }

    fn is_match(&self, name: &str) -> Result<bool, &'static str> {
        match self {
            Self::Linear(regex) => Ok(regex.is_match(name)),
            Self::Backtracking(regex) => regex.is_match(name).map_err(|_limit| {
                "it takes too many steps to tell: write it without repetitions of repetitions"
            }),
        }
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
                assert_eq!(
                    pattern.matches(name),
                    Ok(true),
                    "{text} must match {name:?}"
                );
            }
            for name in others {
                assert_eq!(
                    pattern.matches(name),
                    Ok(false),
                    "{text} must not match {name:?}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_its_place() {
        let table = [
            (
                r"(?=(a))\1",
                "back-references to a group in a look-around, an atomic group or a possessive repetition are not supported (character 8)",
            ),
            (
                r"ä\1(a)",
                "back-reference to a group that does not end before it: it could never match (character 2)",
            ),
            (
                r"(?i)(a)\1",
                "back-references with the flag i are not supported (character 8)",
            ),
            (
                "(?<=a*)b",
                "a look-behind must not look back without limit, or over more than 255 characters (character 1)",
            ),
            (r"\Xx", r"escape \X is not supported (character 1)"),
            (
                r"[\b]",
                r"escape \b is not supported in a class (character 2)",
            ),
            (
                r"\p{Latin}",
                r"property \p{Latin} is not supported (character 1)",
            ),
            (
                r"(?i)\p{Lu}",
                r"Java versions differ in \p{Lu} with the flag i (write \p{Alpha} or \p{L}) (character 5)",
            ),
            (
                "[^a[b]]",
                "Java versions differ in a negated class with classes or && in it (negate its parts instead) (character 1)",
            ),
            (r"\x4", "expected 2 hexadecimal digits (character 1)"),
            (r"\ud83d", "there is no such character (character 1)"),
            ("a\\", "nothing follows the backslash (character 2)"),
            (
                "(?z)a",
                "what follows (? is neither a group of a known kind nor the flags d, i, m, s, u, x, U (character 1)",
            ),
            ("[]", "class is not closed (character 1)"),
            ("[c-a]", "range c-a is reversed (character 2)"),
            ("(a", "parenthesis is not closed (character 1)"),
            (
                "a)",
                "closing parenthesis without an opening one (character 2)",
            ),
            ("*web", "nothing to repeat before * (character 1)"),
            ("a**", "quantifier * follows a quantifier (character 3)"),
            ("a{3,2}", "expected {n}, {n,} or {n,m} (character 2)"),
            (
                "((a{999}){999}){999}",
                "its repetitions multiply to more than is allowed",
            ),
        ];
        for (text, problem) in table {
            let error = NamePattern::new(text).expect_err(text).to_string();
            assert_eq!(error, format!("regular expression {text}: {problem}"));
        }
    }

    #[test]
    fn backtracking_is_only_for_those_who_need_it() {
        for (text, linear) in [
            (r"(.*)\Qweb\E(?i)[a-z&&[^x]]{2}$", true),
            ("(a+)+b", true),
            ("(?!old).*", false),
            (r"(.)\1", false),
            ("a*+", false),
            ("(?>a)", false),
        ] {
            let pattern = NamePattern::new(text).unwrap();
            assert_eq!(matches!(pattern.whole, Engine::Linear(_)), linear, "{text}");
        }
    }

    #[test]
    fn without_a_verdict_the_error_names_pattern_and_name() {
        let name = "x".repeat(60);
        for (text, name, part) in [
            ("(?=.*)(x+x+)+y", name.as_str(), "too many steps"),
            (r"\bw.*", "wéb", "Java versions differ"),
            ("(?m)^$", "", "no clear meaning"),
            ("a$", "a\n", "no clear meaning"),
        ] {
            let pattern = NamePattern::new(text).unwrap();
            let error = pattern.matches(name).unwrap_err().to_string();
            assert!(
                error.contains(text) && error.contains(name) && error.contains(part),
                "{error}"
            );
        }
        // The same without a look-ahead takes no steps to speak of.
        assert_eq!(
            NamePattern::new("(x+x+)+y").unwrap().matches(&name),
            Ok(false)
        );
    }

    /// Patterns that take exponential time, or memory, in engines without limits; the linear engine decides them.
    #[test]
    fn no_expression_hangs_a_job() {
        let begun = std::time::Instant::now();
        let name = format!("{}!", "a".repeat(120));
        for regular in [
            "(a+)+b",
            "(a|a)*b",
            "(a|aa)+b",
            "((a*)*)*b",
            "(.*a){12}b",
            "(?:a?){60}a{60}b",
            "([a-z]+)*[0-9]",
        ] {
            let pattern = NamePattern::new(regular).unwrap();
            assert_eq!(pattern.matches(&name), Ok(false), "{regular}");
            // With a look-ahead it is for the engine with a limit.
            let backtracking = NamePattern::new(&format!("(?=a){regular}")).unwrap();
            assert_ne!(backtracking.matches(&name), Ok(true), "{regular}");
        }
        let limited = NamePattern::new("(?=a)(a|a)*b").unwrap();
        limited.matches(&name).expect_err("too many steps");
        for large in [
            "((((a{99}){99}){99}){99}){99}",
            "(?=x)((a{999}){999}){999}",
            "(\\p{L}{999}){999}",
        ] {
            NamePattern::new(large).expect_err(large);
        }
        for deep in ["(", "[", "(?:", "(?=", "[^"] {
            NamePattern::new(&deep.repeat(100_000)).expect_err(deep);
        }
        // Generous: unlimited, one of them takes longer than the universe has lasted.
        assert!(begun.elapsed().as_secs() < 120);
    }

    #[test]
    fn a_search_is_only_a_hint() {
        let pattern = NamePattern::new("web").unwrap();
        assert_eq!(pattern.matches("web01"), Ok(false));
        assert!(pattern.is_found_in("web01") && !pattern.is_found_in("db01"));
        for (text, anywhere) in [
            ("web", "(.*)web(.*)"),
            ("a|b", ".*(?:a|b).*"),
            (r"(.)\1", r".*(?:(.)\1).*"),
        ] {
            assert_eq!(NamePattern::new(text).unwrap().anywhere(), anywhere);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn quoted_text_matches_itself_and_nothing_else(text in "\\PC{0,12}", other in "\\PC{0,12}") {
            prop_assume!(!text.contains('\\'));
            let quoted = NamePattern::new(&format!(r"\Q{text}\E")).unwrap();
            prop_assert_eq!(quoted.matches(&text), Ok(true));
            prop_assert_eq!(quoted.matches(&other), Ok(text == other));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-a-cA-C\\[\\](){}^$.|*+?\\\\&,:<>=!idwQE0-9ä]{0,16}") {
            if let Ok(pattern) = NamePattern::new(&text) {
                // Whatever matches whole is found, too.
                prop_assert!(pattern.matches("abc") != Ok(true) || pattern.is_found_in("abc"));
            }
        }
    }
}
