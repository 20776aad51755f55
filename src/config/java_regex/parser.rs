//! The grammar of a pattern, but for what stands in brackets (`class`).

use std::collections::BTreeMap;

use super::escape::Escape;
use super::property::ranges;
use super::scanner::Scanner;
use super::{Mode, Needs, Node, Pattern, Refusal, Set, refuse};

/// Groups and classes within each other; the engines have limits of the same size.
const DEEPEST: usize = 40;
/// Characters that a look-behind may look back: more than a name has.
const LONGEST_LOOK_BEHIND: u64 = 255;

/// Reads a pattern in Java's syntax.
pub(in crate::config) fn parse(text: &str) -> Result<Pattern, Refusal> {
    let mut parser = Parser {
        scanner: Scanner::new(text),
        flags: Flags::default(),
        groups: Vec::new(),
        names: BTreeMap::new(),
        referenced: Vec::new(),
        needs: Needs::default(),
        depth: 0,
        independent: Vec::new(),
    };
    let root = parser.alternatives()?;
    if parser.scanner.peek().is_some() {
        return refuse(
            parser.scanner.here(),
            "closing parenthesis without an opening one",
        );
    }
    Ok(Pattern {
        root,
        referenced: parser.referenced,
        needs: parser.needs,
    })
}

/// Inline flags, by Java's names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// `i`
    pub(super) ignore_case: bool,
    /// `u`
    pub(super) unicode_case: bool,
    /// `U`
    pub(super) unicode_classes: bool,
    /// `m`
    multi_line: bool,
    /// `s`
    dot_all: bool,
    /// `d`
    unix_lines: bool,
    /// `x`
    pub(super) comments: bool,
}

/// A capturing group that was opened.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) closed: bool,
    /// It stands in a construct that Java does not undo when it goes back: what the group holds then differs.
    pub(super) independent: bool,
}

pub(super) struct Parser {
    pub(super) scanner: Scanner,
    pub(super) flags: Flags,
    pub(super) groups: Vec<Group>,
    pub(super) names: BTreeMap<String, u32>,
    pub(super) referenced: Vec<u32>,
    pub(super) needs: Needs,
    depth: usize,
    /// Enclosing look-arounds and atomic groups; true for a look-behind.
    pub(super) independent: Vec<bool>,
}

impl Parser {
    /// Up to a closing parenthesis or the end.
    fn alternatives(&mut self) -> Result<Node, Refusal> {
        let mut branches = vec![self.sequence()?];
        while self.scanner.eat('|') {
            branches.push(self.sequence()?);
        }
        Ok(single(branches, Node::Alternate))
    }

    fn sequence(&mut self) -> Result<Node, Refusal> {
        let mut nodes = Vec::new();
        loop {
            self.skip_comments();
            let at = self.scanner.here();
            let Some(c) = self.scanner.peek() else { break };
            if matches!(c, '|' | ')') {
                break;
            }
            self.scanner.bump();
            let atom = match c {
                '(' => match self.group(at)? {
                    Some(group) => group,
                    // Flags alone are nothing that could be repeated.
                    None => continue,
                },
                '[' => Node::Set(self.class(at)?),
                '\\' => match self.escape(at, false)? {
                    Escape::Char(c) => Node::Set(self.literal(at, c)?),
                    Escape::Set(set) => Node::Set(set),
                    Escape::Node(node) => node,
                },
                '.' => Node::Set(self.dot()),
                '^' => {
                    // Java's multi-line `^` wants a character behind it.
                    self.needs.one_line |= self.flags.multi_line;
                    Node::Start
                }
                '$' => {
                    self.needs.one_line = true;
                    Node::End
                }
                '*' | '+' | '?' | '{' => {
                    return refuse(at, format!("nothing to repeat before {c}"));
                }
                other => Node::Set(self.literal(at, other)?),
            };
            let node = self.repeated(atom)?;
            nodes.push(node);
        }
        Ok(match nodes.len() {
            0 => Node::Empty,
            _ => single(nodes, Node::Concat),
        })
    }

    /// Blanks and comments, if the flag `x` is set.
    pub(super) fn skip_comments(&mut self) {
        if !self.flags.comments {
            return;
        }
        while let Some(c) = self.scanner.peek() {
            if c == '#' {
                while self.scanner.peek().is_some_and(|c| !self.ends_line(c)) {
                    self.scanner.bump();
                }
            } else if !is_blank(c) {
                return;
            } else {
                self.scanner.bump();
            }
        }
    }

    /// Refuses blanks and comments `ahead` of the next character, where Java's reader stumbles over them.
    pub(super) fn no_comments_at(&self, ahead: usize) -> Result<(), Refusal> {
        let comment = |c: char| is_blank(c) || c == '#';
        if self.flags.comments && self.scanner.peek_at(ahead).is_some_and(comment) {
            return refuse(
                self.scanner.here(),
                "a blank or comment stands within a construct",
            );
        }
        Ok(())
    }

    fn ends_line(&self, c: char) -> bool {
        c == '\n'
            || !self.flags.unix_lines && matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
    }

    fn dot(&self) -> Set {
        let mut set = if self.flags.dot_all {
            Set::empty()
        } else if self.flags.unix_lines {
            ranges(&[('\n', '\n')])
        } else {
            ranges(&[
                ('\n', '\n'),
                ('\r', '\r'),
                ('\u{85}', '\u{85}'),
                ('\u{2028}', '\u{2029}'),
            ])
        };
        set.negate();
        set
    }

    /// One character, in both cases where flags say so.
    pub(super) fn literal(&self, at: usize, c: char) -> Result<Set, Refusal> {
        let mut set = ranges(&[(c, c)]);
        if !self.flags.ignore_case {
            return Ok(set);
        }
        if c.is_ascii() {
            let (lower, upper) = (c.to_ascii_lowercase(), c.to_ascii_uppercase());
            set.union(&ranges(&[(lower, lower), (upper, upper)]));
        }
        if self.flags.unicode_case {
            set.union(&beyond_ascii(
                at,
                c.to_ascii_lowercase(),
                c.to_ascii_lowercase(),
            )?);
        }
        Ok(set)
    }

    /// What follows an opening parenthesis; `None` if it only set flags.
    fn group(&mut self, at: usize) -> Result<Option<Node>, Refusal> {
        self.no_comments_at(0)?;
        let outside = self.flags;
        let kind = if self.scanner.eat('?') {
            match self.special_group(at)? {
                Some(kind) => kind,
                None => return Ok(None),
            }
        } else {
            Kind::Capture(None)
        };
        let capture = match &kind {
            Kind::Capture(name) => Some(self.open_group(at, name.clone())?),
            Kind::Plain | Kind::Atomic | Kind::Look { .. } => None,
        };
        let independent = match kind {
            Kind::Capture(_) | Kind::Plain => None,
            Kind::Atomic => Some(false),
            Kind::Look { behind, .. } => Some(behind),
        };
        if independent.is_some() && self.independent.contains(&true) {
            return refuse(
                at,
                "look-arounds and atomic groups in a look-behind are not supported",
            );
        }
        self.independent.extend(independent);
        self.enter(at)?;
        let node = self.alternatives()?;
        self.depth -= 1;
        if independent.is_some() {
            self.independent.pop();
        }
        if !self.scanner.eat(')') {
            return refuse(at, "parenthesis is not closed");
        }
        self.flags = outside;
        Ok(Some(match (kind, capture) {
            (Kind::Capture(_), None) | (Kind::Plain, _) => node,
            (Kind::Capture(_), Some(number)) => {
                self.groups[number as usize - 1].closed = true;
                Node::Capture(number, Box::new(node))
            }
            (Kind::Atomic, _) => Node::Atomic(Box::new(node)),
            (Kind::Look { behind, negated }, _) => {
                if behind
                    && node
                        .longest()
                        .is_none_or(|longest| longest > LONGEST_LOOK_BEHIND)
                {
                    return refuse(
                        at,
                        format!(
                            "a look-behind must not look back without limit, or over more than {LONGEST_LOOK_BEHIND} characters"
                        ),
                    );
                }
                Node::Look {
                    behind,
                    negated,
                    node: Box::new(node),
                }
            }
        }))
    }

    pub(super) fn enter(&mut self, at: usize) -> Result<(), Refusal> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return refuse(at, "groups and classes are nested too deeply");
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    fn open_group(&mut self, at: usize, name: Option<String>) -> Result<u32, Refusal> {
        self.groups.push(Group {
            closed: false,
            independent: !self.independent.is_empty(),
        });
        let number = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        if let Some(name) = name
            && self.names.insert(name.clone(), number).is_some()
        {
            return refuse(at, format!("two groups have the name {name}"));
        }
        Ok(number)
    }

    /// What follows `(?`; `None` if it only set flags.
    fn special_group(&mut self, at: usize) -> Result<Option<Kind>, Refusal> {
        let looks = [
            ("=", false, false),
            ("!", false, true),
            ("<=", true, false),
            ("<!", true, true),
        ];
        for (lead, behind, negated) in looks {
            if self.scanner.eat_all(lead) {
                return Ok(Some(Kind::Look { behind, negated }));
            }
        }
        if self.scanner.eat(':') {
            return Ok(Some(Kind::Plain));
        }
        if self.scanner.eat('>') {
            return Ok(Some(Kind::Atomic));
        }
        if self.scanner.eat('<') {
            let name = self.scanner.until('>').unwrap_or_default();
            let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric());
            if !valid {
                return refuse(at, "the name of a group consists of letters and digits");
            }
            return Ok(Some(Kind::Capture(Some(name))));
        }
        self.inline_flags(at)
    }

    /// `i-s)` or `i-s:`.
    fn inline_flags(&mut self, at: usize) -> Result<Option<Kind>, Refusal> {
        let mut on = true;
        loop {
            let flags = &mut self.flags;
            let flag = match self.scanner.bump() {
                Some('i') => &mut flags.ignore_case,
                Some('u') => &mut flags.unicode_case,
                Some('m') => &mut flags.multi_line,
                Some('s') => &mut flags.dot_all,
                Some('d') => &mut flags.unix_lines,
                Some('x') => &mut flags.comments,
                Some('U') if on => {
                    flags.unicode_case = true;
                    &mut flags.unicode_classes
                }
                Some('-') if on => {
                    on = false;
                    continue;
                }
                Some(')') => return Ok(None),
                Some(':') => return Ok(Some(Kind::Plain)),
                Some(_) | None => {
                    return refuse(
                        at,
                        "what follows (? is neither a group of a known kind nor the flags d, i, m, s, u, x, U",
                    );
                }
            };
            *flag = on;
        }
    }

    /// The quantifier behind `atom`, if there is one.
    fn repeated(&mut self, atom: Node) -> Result<Node, Refusal> {
        self.skip_comments();
        let at = self.scanner.here();
        let (min, max) = match self.scanner.peek() {
            Some('?') => (0, Some(1)),
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('{') => self.bounds(at)?,
            Some(_) | None => return Ok(atom),
        };
        self.scanner.bump();
        self.skip_comments();
        let mode = match self.scanner.peek() {
            Some('?') => Mode::Lazy,
            Some('+') => Mode::Possessive,
            Some(_) | None => Mode::Greedy,
        };
        if mode != Mode::Greedy {
            self.scanner.bump();
        }
        self.skip_comments();
        if let Some(c @ ('*' | '+' | '?' | '{')) = self.scanner.peek() {
            return refuse(
                self.scanner.here(),
                format!("quantifier {c} follows a quantifier"),
            );
        }
        let single = matches!(atom, Node::Set(_)) && mode != Mode::Possessive;
        if self.independent.contains(&true) && !single {
            // Java takes some and refuses others: it does not find the greatest length of all.
            return refuse(
                at,
                "possessive repetitions, and those of groups, are not supported in a look-behind",
            );
        }
        if atom.is_place() {
            // Once there is as good as often.
            return Ok(if min == 0 { Node::Empty } else { atom });
        }
        if mode == Mode::Possessive {
            self.close_off(&atom);
        }
        Ok(Node::Repeat {
            node: Box::new(atom),
            min,
            max,
            mode,
        })
    }

    /// Marks the groups in a possessive repetition.
    fn close_off(&mut self, node: &Node) {
        match node {
            Node::Capture(number, node) => {
                self.groups[*number as usize - 1].independent = true;
                self.close_off(node);
            }
            Node::Concat(nodes) | Node::Alternate(nodes) => {
                for node in nodes {
                    self.close_off(node);
                }
            }
            Node::Repeat { node, .. } | Node::Atomic(node) | Node::Look { node, .. } => {
                self.close_off(node);
            }
            Node::Empty
            | Node::Set(_)
            | Node::Start
            | Node::End
            | Node::Boundary { .. }
            | Node::Reference(_) => {}
        }
    }

    /// `{n`, `{n,` or `{n,m`, up to the closing brace.
    fn bounds(&mut self, at: usize) -> Result<(u32, Option<u32>), Refusal> {
        self.scanner.bump();
        let min = self.number();
        let max = if self.scanner.eat(',') {
            match self.scanner.peek() {
                Some('}') => Some(None),
                Some(_) | None => self.number().map(Some),
            }
        } else {
            min.map(Some)
        };
        match (min, max) {
            (Some(min), Some(max))
                if max.is_none_or(|max| min <= max) && self.scanner.peek() == Some('}') =>
            {
                Ok((min, max))
            }
            _ => {
                self.no_comments_at(0)?;
                refuse(at, "expected {n}, {n,} or {n,m}")
            }
        }
    }

    /// Decimal, as large as Java counts.
    fn number(&mut self) -> Option<u32> {
        let mut number = None;
        while let Some(digit) = self.scanner.peek().and_then(|c| c.to_digit(10)) {
            let value = number.unwrap_or(0_i32);
            number = Some(value.checked_mul(10)?.checked_add_unsigned(digit)?);
            self.scanner.bump();
        }
        number.map(i32::unsigned_abs)
    }
}

/// What a parenthesis opens.
enum Kind {
    /// With its name.
    Capture(Option<String>),
    Plain,
    Atomic,
    Look {
        behind: bool,
        negated: bool,
    },
}

/// The characters beyond ASCII that Java takes for one of the range `low` to `high` when the flags `i` and `u` are set: the
/// Kelvin sign, the long s, and i without or with a dot. It looks for their upper case in the range (where there is
/// one), and for the lower case of that.
pub(super) fn beyond_ascii(at: usize, low: char, high: char) -> Result<Set, Refusal> {
    if !high.is_ascii() {
        return refuse(
            at,
            "characters beyond ASCII with the flags i and u (or U) are not supported",
        );
    }
    let same = [
        ('\u{212a}', ['k', 'k']),
        ('\u{17f}', ['S', 's']),
        ('\u{131}', ['I', 'i']),
        ('\u{130}', ['i', 'i']),
    ];
    let within = |letter: &char| (low..=high).contains(letter);
    let found = same
        .into_iter()
        .filter(|(_, letters)| letters.iter().any(within));
    let found: Vec<_> = found.map(|(c, _)| (c, c)).collect();
    Ok(ranges(&found))
}

fn single(mut nodes: Vec<Node>, many: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => many(nodes),
    }
}

/// What Java takes for a blank in comments.
fn is_blank(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ')
}
