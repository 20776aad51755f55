//! Classes in brackets: characters, ranges, unions, intersections.
//!
//! Java 9 changed what a negation means for a class with classes or intersections in it, and operands of `&&` are read in
//! ways that nobody expects when brackets and characters stand side by side: both are refused.

use super::escape::Escape;
use super::parser::{Parser, beyond_ascii};
use super::property::ranges;
use super::{Refusal, Set, refuse};

impl Parser {
    /// What follows an opening bracket at `at`.
    pub(super) fn class(&mut self, at: usize) -> Result<Set, Refusal> {
        self.enter(at)?;
        let negated = self.scanner.eat('^');
        let mut set = Set::empty();
        let mut empty = true;
        let mut composed = false;
        loop {
            self.skip_comments();
            match self.scanner.peek() {
                None => return refuse(at, "class is not closed"),
                // At the beginning it stands for itself.
                Some(']') if !empty => break,
                Some('[') => {
                    let here = self.scanner.here();
                    self.scanner.bump();
                    set.union(&self.class(here)?);
                    composed = true;
                }
                Some('&') if self.ampersands()? => {
                    if empty {
                        return refuse(self.scanner.here(), "nothing stands before &&");
                    }
                    composed = true;
                    self.scanner.eat_all("&&");
                    set.intersect(&self.operand(at)?);
                }
                Some(_) => set.union(&self.item()?),
            }
            empty = false;
        }
        self.scanner.bump();
        self.leave();
        if negated {
            if composed {
                return refuse(
                    at,
                    "Java versions differ in a negated class with classes or && in it (negate its parts instead)",
                );
            }
            set.negate();
        }
        Ok(set)
    }

    /// Whether two come next.
    fn ampersands(&self) -> Result<bool, Refusal> {
        self.no_comments_at(1)?;
        Ok(self.scanner.peek_at(1) == Some('&'))
    }

    /// What follows `&&`: one or more classes, or characters; not both.
    fn operand(&mut self, class: usize) -> Result<Set, Refusal> {
        let mut set = Set::empty();
        let mut items = None;
        loop {
            self.skip_comments();
            let here = self.scanner.here();
            let bracket = match self.scanner.peek() {
                None => return refuse(class, "class is not closed"),
                Some(']') => break,
                Some('&') if self.ampersands()? => break,
                Some('^') if items.is_none() => {
                    return refuse(here, "a negation behind && needs brackets: &&[^...]");
                }
                Some(c) => c == '[',
            };
            if items
                .replace(bracket)
                .is_some_and(|before| before != bracket)
            {
                return refuse(
                    here,
                    "put what stands behind && into one pair of brackets: &&[...]",
                );
            }
            if bracket {
                self.scanner.bump();
                set.union(&self.class(here)?);
            } else {
                set.union(&self.item()?);
            }
        }
        if items.is_none() {
            return refuse(self.scanner.here(), "nothing stands behind &&");
        }
        Ok(set)
    }

    /// A character, a range, or an escape that stands for a set.
    fn item(&mut self) -> Result<Set, Refusal> {
        let at = self.scanner.here();
        let low = match self.character(at)? {
            Item::Set(set) => return Ok(set),
            Item::Char(low) => low,
        };
        self.skip_comments();
        if self.scanner.peek() != Some('-') || self.scanner.peek_at(1) == Some(']') {
            return self.literal(at, low);
        }
        self.no_comments_at(1)?;
        self.scanner.bump();
        match self.scanner.peek() {
            None => return refuse(at, "class is not closed"),
            Some(c @ ('[' | '&')) => {
                return refuse(
                    self.scanner.here(),
                    format!(r"a range ends in {c} (write \{c}, or \- before it)"),
                );
            }
            Some(_) => {}
        }
        match self.character(at)? {
            Item::Char(high) if low <= high => self.range(at, low, high),
            Item::Char(high) => refuse(at, format!("range {low}-{high} is reversed")),
            Item::Set(_) => refuse(at, "a range ends in a set"),
        }
    }

    fn character(&mut self, at: usize) -> Result<Item, Refusal> {
        let vertical = self.scanner.peek_at(1) == Some('v');
        match self.scanner.bump() {
            Some('\\') => match self.escape(at, true)? {
                Escape::Char(c) => Ok(Item::Char(c)),
                Escape::Set(_) if vertical && self.scanner.peek() == Some('-') => {
                    refuse(at, r"\v before a minus sign is not supported")
                }
                Escape::Set(set) => Ok(Item::Set(set)),
                Escape::Node(_) => refuse(at, "this escape has no place in a class"),
            },
            Some(c) => Ok(Item::Char(c)),
            None => refuse(at, "class is not closed"),
        }
    }

    fn range(&self, at: usize, low: char, high: char) -> Result<Set, Refusal> {
        let mut set = ranges(&[(low, high)]);
        if !self.flags.ignore_case {
            return Ok(set);
        }
        // The other case of the ASCII letters in it.
        let other = |c: char| char::from(c as u8 ^ 0x20);
        for (first, last) in [('a', 'z'), ('A', 'Z')] {
            let (low, high) = (low.max(first), high.min(last));
            if low <= high {
                set.union(&ranges(&[(other(low), other(high))]));
            }
        }
        if self.flags.unicode_case {
            set.union(&beyond_ascii(at, low, high)?);
        }
        Ok(set)
    }
}

enum Item {
    Char(char),
    Set(Set),
}
