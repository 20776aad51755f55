//! From Java's syntax of regular expressions to that of the `regex` crate.
//!
//! Every construct is read and written again; nothing is passed through unread. What is written needs no flags: case
//! folding, the dot and the classes of escapes are spelled out.

use std::iter::Peekable;
use std::str::CharIndices;

/// Why a pattern cannot be written again.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) problem: String,
    /// Byte offset in the pattern.
    pub(super) at: usize,
}

/// Writes a Java expression such that the `regex` crate accepts the same names.
pub(super) fn translate(text: &str) -> Result<String, Refusal> {
    Translator::new(text).translate()
}

/// ASCII sets, as the contents of a class.
const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Z_a-z";
const SPACE: &str = r"\x09-\x0D\x20";

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
            Some((at, _)) => refuse(at, "parenthesis is not closed"),
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
            '1'..='9' | 'k' => return refuse(at, "back-references are not supported"),
            'p' | 'P' => return refuse(at, "character properties are not supported"),
            'b' | 'B' => {
                return refuse(
                    at,
                    "word boundaries are not supported (Java versions differ in them)",
                );
            }
            _ if c.is_ascii_alphanumeric() => {
                return refuse(at, format!("escape \\{c} is not supported"));
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
                None => return refuse(at, format!("expected {digits} hexadecimal digits")),
            }
        }
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => refuse(at, "surrogates are not supported"),
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
                    return refuse(at, format!("{what} not supported"));
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
                    "only the flag i is supported in a group that begins with (?",
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
                return refuse(at, "possessive quantifiers are not supported");
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
                return refuse(at, "class is not closed");
            };
            let low = match c {
                ']' if first => return refuse(here, r"a class is empty, or needs \] instead of ]"),
                ']' => break,
                '[' => {
                    return refuse(
                        here,
                        r"classes within classes are not supported (\[ is a bracket)",
                    );
                }
                '&' if self.peek() == Some('&') => {
                    return refuse(
                        here,
                        r"intersections of classes are not supported (\& is an ampersand)",
                    );
                }
                '-' if !first && self.peek() != Some(']') => {
                    return refuse(here, r"a range has no beginning (\- is a minus sign)");
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
            '[' | '&' | '-' => refuse(at, format!(r"a range ends in {after} (write \{after})")),
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
