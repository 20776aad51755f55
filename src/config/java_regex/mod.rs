//! Java's syntax of regular expressions, read once into a tree and written again for engines of this language.
//!
//! [`parse`] reads by the rules of `java.util.regex.Pattern` (API documentation of Java SE 8 to 21) and leaves nothing
//! that depends on flags: case folding, the dot, escapes and properties have become sets of characters. What Java
//! versions read differently, or what the engines cannot do, is refused by name and place. [`Pattern::write`] gives an
//! expression that means the same to the crates `regex` and `fancy-regex`.

mod class;
mod escape;
mod parser;
mod property;
mod scanner;
mod write;

use regex_syntax::hir::ClassUnicode;

pub(super) use self::parser::parse;

/// Characters, as ranges.
type Set = ClassUnicode;

/// Why a pattern cannot be used.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) problem: String,
    /// Byte offset in the pattern.
    pub(super) at: usize,
}

fn refuse<T>(at: usize, problem: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        problem: problem.into(),
        at,
    })
}

/// A pattern that was read.
#[derive(Debug)]
pub(super) struct Pattern {
    root: Node,
    /// Groups that a back-reference names; all others need not capture.
    referenced: Vec<u32>,
    pub(super) needs: Needs,
}

/// What must hold of a name, such that all versions of Java, and the engines, agree on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// ASCII only: before Java 19 `\b` knew letters and digits of all scripts.
    pub(super) ascii: bool,
    /// At least one character, and no line end: where `^` and `$` match beside the ends of a name depends on flags.
    pub(super) one_line: bool,
}

#[derive(Debug)]
enum Node {
    Empty,
    /// One character of a set.
    Set(Set),
    /// Beginning of the name.
    Start,
    /// End of the name.
    End,
    /// `\b`, or `\B` if negated.
    Boundary {
        negated: bool,
    },
    Concat(Vec<Node>),
    Alternate(Vec<Node>),
    Capture(u32, Box<Node>),
    Repeat {
        node: Box<Node>,
        min: u32,
        /// No limit if `None`.
        max: Option<u32>,
        mode: Mode,
    },
    Look {
        behind: bool,
        negated: bool,
        node: Box<Node>,
    },
    Atomic(Box<Node>),
    /// What a group matched.
    Reference(u32),
}

/// How a repetition tries its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Greedy,
    Lazy,
    Possessive,
}

impl Pattern {
    /// Whether an engine without backtracking can decide it.
    pub(super) fn is_regular(&self) -> bool {
        self.root.is_regular()
    }
}

impl Node {
    fn is_regular(&self) -> bool {
        match self {
            Self::Empty | Self::Set(_) | Self::Start | Self::End | Self::Boundary { .. } => true,
            Self::Concat(nodes) | Self::Alternate(nodes) => nodes.iter().all(Self::is_regular),
            Self::Capture(_, node) => node.is_regular(),
            Self::Repeat { node, mode, .. } => *mode != Mode::Possessive && node.is_regular(),
            Self::Look { .. } | Self::Atomic(_) | Self::Reference(_) => false,
        }
    }

    /// Whether it matches no characters, only places.
    fn is_place(&self) -> bool {
        matches!(
            self,
            Self::Empty | Self::Start | Self::End | Self::Boundary { .. } | Self::Look { .. }
        )
    }

    /// Most characters that it can match; `None` if there is no limit.
    fn longest(&self) -> Option<u64> {
        match self {
            Self::Set(_) => Some(1),
            Self::Concat(nodes) => nodes
                .iter()
                .try_fold(0_u64, |sum, node| Some(sum.saturating_add(node.longest()?))),
            Self::Alternate(nodes) => nodes
                .iter()
                .try_fold(0, |most, node| Some(node.longest()?.max(most))),
            Self::Capture(_, node) | Self::Atomic(node) => node.longest(),
            Self::Repeat { node, max, .. } => {
                Some(node.longest()?.saturating_mul(u64::from((*max)?)))
            }
            Self::Empty | Self::Start | Self::End | Self::Boundary { .. } | Self::Look { .. } => {
                Some(0)
            }
            Self::Reference(_) => None,
        }
    }
}
