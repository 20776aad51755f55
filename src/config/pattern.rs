//! Java regular expressions for VM names.
//!
//! A pattern is read by the rules of `java.util.regex.Pattern` (API documentation of Java SE 21) and written again for the
//! `regex` crate, construct by construct, such that both accept the same names. What cannot be written so, or what Java
//! versions read differently, is refused by name: an expression is never read as something else than the user meant.
//! Written out here are Java's defaults, which are narrower than those of the crate: `\d`, `\w`, `\s` and case folding
//! know ASCII only, and `.` stops at five line ends.

use std::iter::Peekable;
use std::str::CharIndices;

use regex::Regex;

/// A regular expression in Java's syntax that must match a whole name.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    whole: Regex,
    part: Regex,
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("regular expression {text}: {problem} at character {position}")]
pub struct PatternError {
    text: String,
    problem: String,
    /// From 1.
    position: usize,
}

impl NamePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// An expression that is wrong in Java, or that means something this version cannot do: look-around, atomic groups,
    /// possessive quantifiers, back-references, `\p{...}`, `\b`, classes within classes, flags other than `i`.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let refused = |problem: String, at: usize| PatternError {
            text: text.to_owned(),
            problem,
            position: text[..at].chars().count() + 1,
        };
        let translated = Translator::new(text)
            .translate()
            .map_err(|Refusal { problem, at }| refused(problem, at))?;
        // What is left to go wrong is the size of the compiled expression.
        let compile = |text: &str| {
            Regex::new(text).map_err(|_too_large| {
                refused(
                    "the expression is too large, counted from the one".to_owned(),
                    0,
                )
            })
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

/// ASCII sets, as the contents of a class.
const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Z_a-z";
const SPACE: &str = r"\x09-\x0D\x20";

struct Refusal {
    problem: String,
    /// Byte offset in the pattern.
    at: usize,
}

fn refuse<T>(at: usize, problem: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        problem: problem.into(),
        at,
    })
}

/// What an escape stands for.
enum Escape {
    Char(char),
    /// A set, and whether it is negated.
    Set(&'static str, bool),
}

/// What may follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing that could be repeated.
    Nothing,
    /// Something that can be repeated.
    Atom,
    /// Something repeated already.
    Repeated,
}

struct Translator<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    out: String,
    ignore_case: bool,
    /// For each open group: where it began, and `ignore_case` around it.
    open: Vec<(usize, bool)>,
    last: Last,
}

impl<'a> Translator<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            chars: text.char_indices().peekable(),
            out: String::new(),
            ignore_case: false,
            open: Vec::new(),
            last: Last::Nothing,
        }
    }

    fn translate(mut self) -> Result<String, Refusal> {
        while let Some((at, c)) = self.chars.next() {
            match c {
                '\\' => self.escape(at)?,
                '[' => self.class(at)?,
                '(' => self.group(at)?,
                ')' => {
                    let Some((_, ignore_case)) = self.open.pop() else {
                        return refuse(at, "closing parenthesis without an opening one");
                    };
                    self.ignore_case = ignore_case;
                    self.out.push(')');
                    self.last = Last::Atom;
                }
                '|' => {
                    self.out.push('|');
                    self.last = Last::Nothing;
                }
                '*' | '+' | '?' | '{' => self.quantifier(at, c)?,
                '.' => self.atom(r"[^\n\r\x{85}\x{2028}\x{2029}]"),
                // Without flags these are the ends of the name. Java's `$` also matches before a line end at the end,
                // which no name has.
                '^' => self.atom(r"\A"),
                '$' => self.atom(r"\z"),
                other => self.literal(other),
            }
        }
        match self.open.pop() {
            Some((at, _)) => refuse(at, "parenthesis is not closed, the one"),
            None => Ok(self.out),
        }
    }

    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.last = Last::Atom;
    }

    fn literal(&mut self, c: char) {
        if self.ignore_case && c.is_ascii_alphabetic() {
            self.out
                .extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
        } else {
            push_escaped(&mut self.out, c);
        }
        self.last = Last::Atom;
    }

    fn escape(&mut self, at: usize) -> Result<(), Refusal> {
        if self.chars.next_if(|(_, c)| *c == 'Q').is_some() {
            self.quote();
            return Ok(());
        }
        match self.escaped(at)? {
            Escape::Char(c) => self.literal(c),
            Escape::Set(set, negated) => {
                let open = if negated { "[^" } else { "[" };
                self.out.extend([open, set, "]"]);
                self.last = Last::Atom;
            }
        }
        Ok(())
    }

    /// Up to `\E` or the end of the pattern; a quantifier behind it belongs to the last character, as in Java.
    fn quote(&mut self) {
        while let Some((_, c)) = self.chars.next() {
            if c == '\\' && self.chars.next_if(|(_, c)| *c == 'E').is_some() {
                break;
            }
            self.literal(c);
        }
    }

    /// What follows a backslash, within a class or not.
    fn escaped(&mut self, at: usize) -> Result<Escape, Refusal> {
        let Some((_, c)) = self.chars.next() else {
            return refuse(at, "nothing follows the backslash");
        };
        Ok(match c {
            'd' => Escape::Set(DIGIT, false),
            'D' => Escape::Set(DIGIT, true),
            'w' => Escape::Set(WORD, false),
            'W' => Escape::Set(WORD, true),
            's' => Escape::Set(SPACE, false),
            'S' => Escape::Set(SPACE, true),
            't' => Escape::Char('\t'),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            'f' => Escape::Char('\x0c'),
            'a' => Escape::Char('\x07'),
            'e' => Escape::Char('\x1b'),
            'x' => Escape::Char(self.code(at, 2)?),
            'u' => Escape::Char(self.code(at, 4)?),
            '1'..='9' | 'k' => return refuse(at, "back-references are not supported:"),
            'p' | 'P' => return refuse(at, "character properties are not supported:"),
            'b' | 'B' => {
                return refuse(
                    at,
                    "word boundaries are not supported (Java versions differ in them):",
                );
            }
            _ if c.is_ascii_alphanumeric() => {
                return refuse(at, format!("escape \\{c} is not supported:"));
            }
            // Java keeps letters for itself; anything else stands for itself.
            _ => Escape::Char(c),
        })
    }

    fn code(&mut self, at: usize, digits: usize) -> Result<char, Refusal> {
        let mut code = 0;
        for _ in 0..digits {
            match self.chars.next().and_then(|(_, c)| c.to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return refuse(at, format!("expected {digits} hexadecimal digits:")),
            }
        }
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => refuse(at, "surrogates are not supported:"),
        }
    }

    /// `(...)`, `(?:...)`, `(?<name>...)`, `(?i)`, `(?i:...)` and the same with `-i`.
    fn group(&mut self, at: usize) -> Result<(), Refusal> {
        let outside = self.ignore_case;
        if self.chars.next_if(|(_, c)| *c == '?').is_some() {
            let rest = &self.text[at + 2..];
            for (lead, what) in [
                ("=", "look-ahead is"),
                ("!", "look-ahead is"),
                ("<=", "look-behind is"),
                ("<!", "look-behind is"),
                (">", "atomic groups are"),
            ] {
                if rest.starts_with(lead) {
                    return refuse(at, format!("{what} not supported:"));
                }
            }
            let flags = ["i)", "-i)"];
            if let Some(flag) = flags.iter().find(|flag| rest.starts_with(**flag)) {
                // Holds up to the end of the group around it.
                self.ignore_case = *flag == "i)";
                self.skip(flag.len());
                self.last = Last::Nothing;
                return Ok(());
            }
            if rest.starts_with(':') {
                self.skip(1);
            } else if rest.starts_with("i:") {
                self.skip(2);
                self.ignore_case = true;
            } else if rest.starts_with("-i:") {
                self.skip(3);
                self.ignore_case = false;
            } else if let Some(len) = group_name(rest) {
                self.skip(len);
            } else {
                return refuse(
                    at,
                    "only the flag i is supported in a group that begins with (?:",
                );
            }
        }
        self.open.push((at, outside));
        // Nothing refers to what a group matched.
        self.out.push_str("(?:");
        self.last = Last::Nothing;
        Ok(())
    }

    fn skip(&mut self, ascii: usize) {
        for _ in 0..ascii {
            self.chars.next();
        }
    }

    fn quantifier(&mut self, at: usize, c: char) -> Result<(), Refusal> {
        match self.last {
            Last::Atom => {}
            Last::Nothing => return refuse(at, format!("nothing to repeat before {c}")),
            Last::Repeated if c == '+' => {
                return refuse(at, "possessive quantifiers are not supported:");
            }
            Last::Repeated => return refuse(at, format!("quantifier {c} follows a quantifier")),
        }
        if c == '{' {
            let bounds = self.text[at..]
                .split_once('}')
                .map(|(bounds, _)| &bounds[1..]);
            let Some(bounds) = bounds.filter(|bounds| are_bounds(bounds)) else {
                return refuse(at, "expected {n}, {n,} or {n,m}");
            };
            self.skip(bounds.len() + 1);
            self.out.extend(["{", bounds, "}"]);
        } else {
            self.out.push(c);
        }
        // Lazy or not, a whole name matches or it does not.
        if self.chars.next_if(|(_, c)| *c == '?').is_some() {
            self.out.push('?');
        }
        self.last = Last::Repeated;
        Ok(())
    }

    fn class(&mut self, at: usize) -> Result<(), Refusal> {
        self.out.push('[');
        if self.chars.next_if(|(_, c)| *c == '^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some((here, c)) = self.chars.next() else {
                return refuse(at, "class is not closed, the one");
            };
            let low = match c {
                ']' if first => return refuse(here, r"a class is empty, or needs \] instead of ]"),
                ']' => break,
                '[' => {
                    return refuse(
                        here,
                        r"classes within classes are not supported (\[ is a bracket):",
                    );
                }
                '&' if self.peek() == Some('&') => {
                    return refuse(
                        here,
                        r"intersections of classes are not supported (\& is an ampersand):",
                    );
                }
                '-' if !first && self.peek() != Some(']') => {
                    return refuse(here, r"a range has no beginning (\- is a minus sign):");
                }
                '\\' => match self.escaped(here)? {
                    Escape::Char(c) => c,
                    Escape::Set(set, negated) => {
                        let open = if negated { "[^" } else { "[" };
                        self.out.extend([open, set, "]"]);
                        first = false;
                        continue;
                    }
                },
                other => other,
            };
            first = false;
            let high = self.range_end(low)?;
            if high < low {
                return refuse(here, format!("range {low}-{high} is reversed"));
            }
            self.push_range(low, high);
        }
        self.out.push(']');
        self.last = Last::Atom;
        Ok(())
    }

    /// The other end of the range that `low` begins; `low` itself where it begins none.
    fn range_end(&mut self, low: char) -> Result<char, Refusal> {
        let mut ahead = self.chars.clone();
        let minus = ahead.next();
        let after = ahead.peek().map(|(_, c)| *c);
        let (Some((at, '-')), Some(after)) = (minus, after) else {
            return Ok(low);
        };
        if after == ']' {
            // A minus sign at the end of a class stands for itself.
            return Ok(low);
        }
        self.chars = ahead;
        self.chars.next();
        match after {
            '\\' => match self.escaped(at)? {
                Escape::Char(high) => Ok(high),
                Escape::Set(..) => refuse(at, "a range ends in a set"),
            },
            '[' | '&' | '-' => refuse(at, format!(r"a range ends in {after} (write \{after}):")),
            high => Ok(high),
        }
    }

    fn push_range(&mut self, low: char, high: char) {
        push_between(&mut self.out, low, high);
        if !self.ignore_case {
            return;
        }
        // The other case of the ASCII letters in it.
        for (first, last) in [('a', 'z'), ('A', 'Z')] {
            let (low, high) = (low.max(first), high.min(last));
            if low <= high {
                let other = |c: char| {
                    if c.is_ascii_lowercase() {
                        c.to_ascii_uppercase()
                    } else {
                        c.to_ascii_lowercase()
                    }
                };
                push_between(&mut self.out, other(low), other(high));
            }
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }
}

fn push_between(out: &mut String, low: char, high: char) {
    push_escaped(out, low);
    if low != high {
        out.push('-');
        push_escaped(out, high);
    }
}

/// Writes a character such that it stands for itself, within a class or not.
fn push_escaped(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        out.push_str(&format!(r"\x{{{:x}}}", u32::from(c)));
    }
}

/// Bytes of `<name>` at the beginning of `text`.
fn group_name(text: &str) -> Option<usize> {
    let (name, _) = text.strip_prefix('<')?.split_once('>')?;
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    valid.then_some(name.len() + 2)
}

/// `n`, `n,` or `n,m` with n <= m.
fn are_bounds(text: &str) -> bool {
    let number = |digits: &str| {
        let plain = digits.chars().all(|c| c.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten()
    };
    match text.split_once(',') {
        None => number(text).is_some(),
        Some((least, "")) => number(least).is_some(),
        Some((least, most)) => {
            matches!((number(least), number(most)), (Some(least), Some(most)) if least <= most)
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
            ("a(?=b)", "look-ahead is not supported: at character 2"),
            ("(?!b)a", "look-ahead is not supported: at character 1"),
            ("(?<=b)a", "look-behind is not supported: at character 1"),
            ("ä(?<!b)a", "look-behind is not supported: at character 2"),
            ("(?>b)", "atomic groups are not supported: at character 1"),
            (
                "a*+",
                "possessive quantifiers are not supported: at character 3",
            ),
            (
                "a{2}+",
                "possessive quantifiers are not supported: at character 5",
            ),
            (
                r"(a)\1",
                "back-references are not supported: at character 4",
            ),
            (
                r"(?<x>a)\k<x>",
                "back-references are not supported: at character 8",
            ),
            (
                r"\p{L}",
                "character properties are not supported: at character 1",
            ),
            (
                r"[\p{L}]",
                "character properties are not supported: at character 2",
            ),
            (
                r"\bweb",
                "word boundaries are not supported (Java versions differ in them): at character 1",
            ),
            (r"\Rx", r"escape \R is not supported: at character 1"),
            (r"\012", r"escape \0 is not supported: at character 1"),
            (r"\x4", "expected 2 hexadecimal digits: at character 1"),
            (r"\ud83d", "surrogates are not supported: at character 1"),
            ("a\\", "nothing follows the backslash at character 2"),
            (
                "(?m)a",
                "only the flag i is supported in a group that begins with (?: at character 1",
            ),
            (
                "(?x:a)",
                "only the flag i is supported in a group that begins with (?: at character 1",
            ),
            (
                "[a[b]]",
                r"classes within classes are not supported (\[ is a bracket): at character 3",
            ),
            (
                "[a&&b]",
                r"intersections of classes are not supported (\& is an ampersand): at character 3",
            ),
            (
                "[]a]",
                r"a class is empty, or needs \] instead of ] at character 2",
            ),
            (
                "[]",
                r"a class is empty, or needs \] instead of ] at character 2",
            ),
            (
                "[a-c-e]",
                r"a range has no beginning (\- is a minus sign): at character 5",
            ),
            (
                r"[\d-x]",
                r"a range has no beginning (\- is a minus sign): at character 4",
            ),
            (r"[a-\d]", "a range ends in a set at character 3"),
            ("[c-a]", "range c-a is reversed at character 2"),
            ("[a--]", r"a range ends in - (write \-): at character 3"),
            ("[abc", "class is not closed, the one at character 1"),
            ("(a", "parenthesis is not closed, the one at character 1"),
            (
                "a)",
                "closing parenthesis without an opening one at character 2",
            ),
            ("*web", "nothing to repeat before * at character 1"),
            ("a|+", "nothing to repeat before + at character 3"),
            ("(?i)*", "nothing to repeat before * at character 5"),
            ("a**", "quantifier * follows a quantifier at character 3"),
            (
                "a{2}{3}",
                "quantifier { follows a quantifier at character 5",
            ),
            ("a{,3}", "expected {n}, {n,} or {n,m} at character 2"),
            ("a{3,2}", "expected {n}, {n,} or {n,m} at character 2"),
            ("a{x}", "expected {n}, {n,} or {n,m} at character 2"),
            ("a{1", "expected {n}, {n,} or {n,m} at character 2"),
            (
                "((a{999}){999}){999}",
                "the expression is too large, counted from the one at character 1",
            ),
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
