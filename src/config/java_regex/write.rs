//! A pattern in the syntax that the crates `regex` and `fancy-regex` have in common. It needs no flags.

use std::fmt::Write;

use super::{Mode, Node, Pattern, Set};

impl Pattern {
    /// An expression that matches where this pattern does. Groups capture only if a back-reference names them.
    pub(in crate::config) fn write(&self) -> String {
        let mut writer = Writer {
            out: String::new(),
            referenced: &self.referenced,
        };
        writer.node(&self.root);
        writer.out
    }
}

struct Writer<'a> {
    out: String,
    referenced: &'a [u32],
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) {
        match node {
            Node::Empty => self.out.push_str("(?:)"),
            Node::Set(set) => self.set(set),
            Node::Start => self.out.push_str(r"\A"),
            Node::End => self.out.push_str(r"\z"),
            Node::Boundary { negated } => self.out.push_str(if *negated { r"\B" } else { r"\b" }),
            Node::Concat(nodes) => nodes.iter().for_each(|node| self.node(node)),
            Node::Alternate(nodes) => {
                self.out.push_str("(?:");
                for (index, node) in nodes.iter().enumerate() {
                    if index > 0 {
                        self.out.push('|');
                    }
                    self.node(node);
                }
                self.out.push(')');
            }
            Node::Capture(number, node) if self.referenced.contains(number) => {
                self.enclosed(&format!("(?<g{number}>"), node);
            }
            Node::Capture(_, node) => self.enclosed("(?:", node),
            Node::Repeat {
                node,
                min,
                max,
                mode,
            } => self.repeat(node, *min, *max, *mode),
            Node::Look {
                behind,
                negated,
                node,
            } => self.enclosed(
                match (behind, negated) {
                    (false, false) => "(?=",
                    (false, true) => "(?!",
                    (true, false) => "(?<=",
                    (true, true) => "(?<!",
                },
                node,
            ),
            Node::Atomic(node) => self.enclosed("(?>", node),
            Node::Reference(number) => self.push(format_args!(r"\k<g{number}>")),
        }
    }

    fn enclosed(&mut self, open: &str, node: &Node) {
        self.out.push_str(open);
        self.node(node);
        self.out.push(')');
    }

    fn repeat(&mut self, node: &Node, min: u32, max: Option<u32>, mode: Mode) {
        let open = match mode {
            Mode::Greedy | Mode::Lazy => "(?:",
            // In Java each turn of a possessive repetition stands by itself, too.
            Mode::Possessive => "(?>(?>",
        };
        self.enclosed(open, node);
        match (min, max) {
            (0, None) => self.out.push('*'),
            (1, None) => self.out.push('+'),
            (0, Some(1)) => self.out.push('?'),
            (min, None) => self.push(format_args!("{{{min},}}")),
            (min, Some(max)) => self.push(format_args!("{{{min},{max}}}")),
        }
        match mode {
            Mode::Greedy => {}
            Mode::Lazy => self.out.push('?'),
            Mode::Possessive => self.out.push(')'),
        }
    }

    fn set(&mut self, set: &Set) {
        match set.ranges() {
            [] => self.out.push_str(r"[^\x{0}-\x{10FFFF}]"),
            [one] if one.start() == one.end() => self.character(one.start()),
            ranges => {
                self.out.push('[');
                for range in ranges {
                    self.character(range.start());
                    self.out.push('-');
                    self.character(range.end());
                }
                self.out.push(']');
            }
        }
    }

    /// Stands for itself, within a class or not.
    fn character(&mut self, c: char) {
        if c.is_ascii_alphanumeric() {
            self.out.push(c);
        } else {
            self.push(format_args!(r"\x{{{:x}}}", u32::from(c)));
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a String takes everything");
    }
}
