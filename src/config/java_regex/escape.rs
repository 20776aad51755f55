//! What begins with a backslash.

use super::parser::{Group, Parser};
use super::property::{Property, escape, property, ranges};
use super::{Node, Refusal, Set, refuse};

/// What an escape stands for.
pub(super) enum Escape {
    Char(char),
    Set(Set),
    Node(Node),
}

impl Parser {
    /// What follows a backslash, within a class or not.
    pub(super) fn escape(&mut self, at: usize, in_class: bool) -> Result<Escape, Refusal> {
        let Some(c) = self.scanner.bump() else {
            return refuse(at, "nothing follows the backslash");
        };
        let lower = c.to_ascii_lowercase();
        if matches!(lower, 'd' | 'h' | 's' | 'v' | 'w') {
            let Some(mut set) = escape(lower, self.flags.unicode_classes) else {
                return refuse(at, format!("escape \\{c} is not supported"));
            };
            if c != lower {
                set.negate();
            }
            return Ok(Escape::Set(set));
        }
        Ok(match c {
            't' => Escape::Char('\t'),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            'f' => Escape::Char('\x0c'),
            'a' => Escape::Char('\x07'),
            'e' => Escape::Char('\x1b'),
            '0' => Escape::Char(self.octal(at)?),
            'x' => Escape::Char(self.hexadecimal(at)?),
            'u' => Escape::Char(self.utf16(at)?),
            'c' => match self.scanner.bump() {
                Some(key) if key.is_ascii() && !self.flags.comments => {
                    Escape::Char(char::from(key as u8 ^ 64))
                }
                Some(_) | None => return refuse(at, r"\c needs an ASCII character"),
            },
            'p' | 'P' => Escape::Set(self.property(at, c == 'P')?),
            'A' | 'G' if !in_class => Escape::Node(Node::Start),
            'z' if !in_class => Escape::Node(Node::End),
            'Z' if !in_class => {
                self.needs.one_line = true;
                Escape::Node(Node::End)
            }
            'b' | 'B' if !in_class => {
                self.no_comments_at(0)?;
                // `\B{2}` is a repetition.
                if c == 'b' && self.scanner.peek() == Some('{') {
                    return refuse(at, r"\b{...} is not supported");
                }
                self.needs.ascii = true;
                Escape::Node(Node::Boundary { negated: c == 'B' })
            }
            'R' if !in_class => Escape::Node(Node::Alternate(vec![
                Node::Concat(vec![
                    Node::Set(ranges(&[('\r', '\r')])),
                    Node::Set(ranges(&[('\n', '\n')])),
                ]),
                Node::Set(escape('v', false).unwrap_or_else(Set::empty)),
            ])),
            'k' if !in_class => Escape::Node(self.named_reference(at)?),
            '1'..='9' if !in_class => Escape::Node(self.numbered_reference(at, c)?),
            _ if c.is_ascii_alphanumeric() => {
                let place = if in_class { " in a class" } else { "" };
                return refuse(at, format!("escape \\{c} is not supported{place}"));
            }
            // Java keeps letters for itself; anything else stands for itself.
            _ => Escape::Char(c),
        })
    }

    /// `\0n`, `\0nn`, `\0mnn` with m up to 3.
    fn octal(&mut self, at: usize) -> Result<char, Refusal> {
        let mut code = 0;
        let mut digits = 0;
        while let Some(digit) = self.scanner.peek().and_then(|c| c.to_digit(8)) {
            if digits == 3 || code * 8 + digit > 0o377 {
                break;
            }
            code = code * 8 + digit;
            digits += 1;
            self.scanner.bump();
        }
        if digits == 0 {
            return refuse(at, r"expected octal digits behind \0");
        }
        self.no_comments_at(0)?;
        character(at, code)
    }

    /// `\xhh` or `\x{h...h}`.
    fn hexadecimal(&mut self, at: usize) -> Result<char, Refusal> {
        if !self.scanner.eat('{') {
            let code = self.digits(at, 2)?;
            return character(at, code);
        }
        let digits = self.scanner.until('}').unwrap_or_default();
        let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
        match u32::from_str_radix(&digits, 16) {
            Ok(code) if plain => character(at, code),
            Ok(_) | Err(_) => refuse(at, "expected hexadecimal digits in braces"),
        }
    }

    /// `\uhhhh`, or two of them for a character beyond the first 65536.
    fn utf16(&mut self, at: usize) -> Result<char, Refusal> {
        let high = self.digits(at, 4)?;
        if (0xd800..0xdc00).contains(&high) && self.scanner.eat_all(r"\u") {
            let low = self.digits(at, 4)?;
            if (0xdc00..0xe000).contains(&low) {
                return character(at, 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            }
        }
        character(at, high)
    }

    fn digits(&mut self, at: usize, count: usize) -> Result<u32, Refusal> {
        let mut code = 0;
        for _ in 0..count {
            self.no_comments_at(0)?;
            match self.scanner.bump().and_then(|c| c.to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return refuse(at, format!("expected {count} hexadecimal digits")),
            }
        }
        Ok(code)
    }

    /// `\pL` or `\p{Name}`.
    fn property(&mut self, at: usize, negated: bool) -> Result<Set, Refusal> {
        self.no_comments_at(0)?;
        let name = if self.scanner.eat('{') {
            self.scanner.until('}')
        } else {
            self.scanner.bump().map(String::from)
        };
        let Some(name) = name else {
            return refuse(at, r"\p needs a name, as in \p{Alpha}");
        };
        let mut set = match property(&name, self.flags.unicode_classes) {
            Some(Property::Set(set)) => set,
            Some(Property::Cased(_)) if self.flags.ignore_case => {
                return refuse(
                    at,
                    format!(
                        r"Java versions differ in \p{{{name}}} with the flag i (write \p{{Alpha}} or \p{{L}})"
                    ),
                );
            }
            Some(Property::Cased(set)) => set,
            None => return refuse(at, format!(r"property \p{{{name}}} is not supported")),
        };
        if negated {
            set.negate();
        }
        Ok(set)
    }

    fn named_reference(&mut self, at: usize) -> Result<Node, Refusal> {
        let name = self.scanner.eat('<').then(|| self.scanner.until('>'));
        let Some(name) = name.flatten() else {
            return refuse(at, r"expected \k<name>");
        };
        match self.names.get(&name) {
            Some(group) => self.reference(at, *group),
            None => refuse(at, format!("there is no group {name} before it")),
        }
    }

    /// Java takes as many digits as there are groups so far.
    fn numbered_reference(&mut self, at: usize, first: char) -> Result<Node, Refusal> {
        let mut group = first.to_digit(10).unwrap_or(0) as usize;
        while let Some(digit) = self.scanner.peek().and_then(|c| c.to_digit(10)) {
            let longer = group * 10 + digit as usize;
            if longer > self.groups.len() {
                break;
            }
            group = longer;
            self.scanner.bump();
        }
        self.no_comments_at(0)?;
        self.reference(at, u32::try_from(group).unwrap_or(u32::MAX))
    }

    fn reference(&mut self, at: usize, number: u32) -> Result<Node, Refusal> {
        let group = (number as usize)
            .checked_sub(1)
            .and_then(|at| self.groups.get(at));
        let problem = match group {
            None | Some(Group { closed: false, .. }) => {
                "back-reference to a group that does not end before it: it could never match"
            }
            Some(Group {
                independent: true, ..
            }) => {
                "back-references to a group in a look-around, an atomic group or a possessive repetition are not supported"
            }
            Some(_) if self.independent.contains(&true) => {
                "back-references in a look-behind are not supported"
            }
            Some(_) if self.flags.ignore_case => {
                "back-references with the flag i are not supported"
            }
            Some(_) => {
                self.referenced.push(number);
                return Ok(Node::Reference(number));
            }
        };
        refuse(at, problem)
    }
}

fn character(at: usize, code: u32) -> Result<char, Refusal> {
    match char::from_u32(code) {
        Some(c) => Ok(c),
        None => refuse(at, "there is no such character"),
    }
}
