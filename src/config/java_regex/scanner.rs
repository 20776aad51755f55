//! The characters of a pattern with their places, quotes (`\Q...\E`) already resolved.

/// Walks through a pattern.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    /// Byte offset in the pattern as written, and character.
    chars: Vec<(usize, char)>,
    next: usize,
    /// Bytes of the pattern as written.
    len: usize,
}

impl Scanner {
    pub(super) fn new(text: &str) -> Self {
        Self {
            chars: unquote(text),
            next: 0,
            len: text.len(),
        }
    }

    /// Byte offset of the next character.
    pub(super) fn here(&self) -> usize {
        self.chars.get(self.next).map_or(self.len, |(at, _)| *at)
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.peek_at(0)
    }

    /// The character `ahead` of the next one.
    pub(super) fn peek_at(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.next + ahead).map(|(_, c)| *c)
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.next += 1;
        Some(c)
    }

    /// Takes the next character if it is `c`.
    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.next += usize::from(found);
        found
    }

    /// Takes `text` if it comes next.
    pub(super) fn eat_all(&mut self, text: &str) -> bool {
        let found = text
            .chars()
            .enumerate()
            .all(|(ahead, c)| self.peek_at(ahead) == Some(c));
        if found {
            self.next += text.chars().count();
        }
        found
    }

    /// Everything up to `end`, which is taken, too; `None` if it does not come.
    pub(super) fn until(&mut self, end: char) -> Option<String> {
        let rest = &self.chars[self.next..];
        let len = rest.iter().position(|(_, c)| *c == end)?;
        let text = rest[..len].iter().map(|(_, c)| *c).collect();
        self.next += len + 1;
        Some(text)
    }
}

/// Java resolves quotes before it reads anything else, in classes as well: a quoted sign becomes an escaped one, a quoted
/// letter stays a letter, a digit right behind `\Q` is written as a code, since it must not lengthen a back-reference.
fn unquote(text: &str) -> Vec<(usize, char)> {
    let mut plain = Vec::with_capacity(text.len());
    let mut chars = text.char_indices().peekable();
    let mut quoted = false;
    let mut first = false;
    while let Some((at, c)) = chars.next() {
        let after = chars.peek().map(|(_, c)| *c);
        match (c, after) {
            ('\\', Some('E')) if quoted => {
                chars.next();
                quoted = false;
            }
            ('\\', Some('Q')) if !quoted => {
                chars.next();
                quoted = true;
                first = true;
                continue;
            }
            ('\\', Some(escaped)) if !quoted => {
                chars.next();
                plain.extend([(at, '\\'), (at + 1, escaped)]);
            }
            (digit, _) if quoted && first && digit.is_ascii_digit() => {
                plain.extend(['\\', 'x', '3', digit].map(|c| (at, c)));
            }
            (sign, _) if quoted && sign.is_ascii() && !sign.is_ascii_alphanumeric() => {
                plain.extend([(at, '\\'), (at, sign)]);
            }
            (other, _) => plain.push((at, other)),
        }
        first = false;
    }
    plain
}
