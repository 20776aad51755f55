//! Patterns and names: a list by construct, and a grammar that makes more at random.

use fastrand::Rng;

/// A pattern and the names that it is tried on.
pub(crate) type Question = (String, Vec<String>);

/// Names of machines, and what a machine cannot be called but an expression can tell apart.
#[rustfmt::skip]
const NAMES: [&str; 66] = [
    "", "a", "b", "c", "A", "B", "k", "K", "s", "i", "I", "web", "WEB", "Web01", "web01", "web-01", "my-web-1",
    "old-web", "old.web", "older", "an-old", "keep.old", "ledger01", "LEDGER01", "db_1", "aa", "ab", "ba", "bb",
    "aab", "aba", "abb", "abc", "abcabc", "aaaa", "aaaaaaaa", "xyz", "x.y", "x-y", "x_y", "x y", "1", "12", "123",
    "a1", "1a", "-", "_", ".", "]", "[", "^", "&", "\\", "*", "a.b", "a*b", "abab", "abba", "aAaA", "a-b-c",
    "web01web01", "\u{e9}", "\u{212a}", "\u{17f}", "a\u{e9}b",
];

/// Names on which flags and Unicode show.
#[rustfmt::skip]
const ODD: [&str; 22] = [
    "\n", "a\n", "a\r\n", "\na", "a\nb", "a\u{85}b", "a\u{2028}", "\t", "\u{b}", "\u{c}", "\u{7}", "\u{1b}", "\u{a0}",
    "\u{3000}", "\u{131}", "\u{130}", "\u{3b1}", "\u{416}", "\u{661}", "\u{1f600}", "\u{df}", "\u{0}",
];

/// By construct. Every pattern is tried on every name.
#[rustfmt::skip]
const PATTERNS: &[&str] = &[
    // Literals, whole match, alternatives.
    "", "a", "web", "(.*)web(.*)", ".*web.*", "^old(.*)", "(.*)old$", "^web01$", "a|b", "a|ab|abc", "|a", "a|",
    "a||b", "(|a)b", "()", "(?:)", "(a|b)*", "(a|ab)(c|bcd)?", "x.y", r"x\.y", "]", "}", "a]", "a}", "{", "a{",
    "web[0-9]{2}",
    // Quantifiers.
    "a?", "a*", "a+", "a??", "a*?", "a+?", "a?+", "a*+", "a++", "a{2}", "a{2,}", "a{2,3}", "a{0}", "a{0,0}b", "a{2}?",
    "a{2,3}?", "a{2,3}+", "a{2}+", "a{,3}", "a{x}", "a{1", "a{3,2}", "a{}", "a{2147483647}b", "a{2147483648}",
    "a{0,2147483647}", "{2}", "a**", "a+*", "a?*", "a{2}{3}", "a+{2}", "*a", "+", "?", "(*a)", "(?:+a)", "a|*",
    "(a+)+", "(a*)*", "(a?)*b", "(a|b?)+c", "(?:a|)+b", "(?:|a)+b", "(?:|a){2}b", "(a*)+", "(?:a*?)+?b", "^*a", "^?a",
    "^+a", "$?", "a$*", r"\b*a", r"(?:\b)+a", "(?=a)*a", "(?=a)?b", "(?=a)+a", "(?!a){2}b", "(?<=a)*b",
    // Possessive and atomic: order decides.
    "a*+a", "a*+b", "(?>a*)a", "(?>a|ab)c", "(?>ab|a)c", "(?:a|ab)++c", "(?:a|ab){2}+a", "(?:ab|a){2}+",
    "(?:a|b|ab)*+c", "(a|ab){1,2}+b", "[ab]++c", ".*+b", ".++", "(?>.*)", "(?>a+)b", "x*+y", "(?>(?>a)b|a)",
    "(?>|a)b", "(?>a|)", "(?>a??)b", "(?:a?+)*b", "(?:a??b)*+",
    // Look-around.
    "(?=a).*", "(?!old).*", "(?!.*old).*web.*", "(?=.*web)(?=.*1).*", ".*(?<=1)", ".*(?<!1)", "(?<!a)b", "a(?<=a)b",
    "ab(?<=ab)", ".*(?<=a|bc)", ".*(?<=a{1,3})b", ".*(?<=ab?)c", "(?<=a*)b", "(?<=a+)b", "(?<=a{2,})b",
    ".*(?<=^a)b.*", ".*(?<!^)b", "(?<=)a", "(?<!)a", "(?=)a", "(?!)a", "(?=(a))a", "(?!(a))b", "a(?=b)", "a(?=b)b",
    "(?:(?!b).)*", "(?:(?!old).)*", ".*(?<=[0-9]{2})", ".*(?<=web)01", ".*(?<!web)01", "(?=a|b).", ".*(?<=(?=a)a)",
    ".*(?<=(?>a|ab))b", r".*(?<=\bab)c", r".*(?<=a\b).*", "(?<=a{1,300})b", "(?:(?=a)a|b)+", "(?:(?=.b)a|b)*",
    "((?!ab)[ab])*",
    // Back-references.
    r"(a)\1", r"(.)\1", r"(.+)\1", r"(a|b)\1*", r"(a)(b)\2\1", r"(.)(.)\2\1", r"(?<x>a)\k<x>", r"(?<x>.+)-?\k<x>",
    r"\k<x>(?<x>a)", r"\k<y>", r"\1(a)", r"(a)\2", r"\1", r"(a\1)", r"(a)\11", r"(a)|b\1", r"(?:(a)|b)\1",
    r"(?:(a)|b)*\1", r"(a?)\1b", r"(a*)\1", r"(a*?)\1b", r"(?i)(a)\1", r"(?=(a))\1", r"(?>(a))\1", r"(a)++\1",
    r"(?:(a)b)++\1", r"(?=(a)\1).*", r"((a)|b)*\2", r"(?:(a)|(b))*\1\2", r"(?<a>a)(?<a>b)", r"(?<1>a)", r"(?<a_b>a)",
    r"(?<a1>a)", "(?<>a)", "(?<a", r"\k", r"\k<", r"\kx", r"(a)(?<=\1)", r"(a)(b)(c)\3?",
    "(a)(b)(c)(a)(b)(c)(d)?(e)?(f)?(g)?(h)?\\11?",
    // Escapes.
    r"\d+", r"\D+", r"\w+", r"\W+", r"\s+", r"\S+", r"\h", r"\H+", r"\v", r"\V+", r"\R", r"a\R", r"a\Rb?", r"\X",
    r"\N{LATIN SMALL LETTER A}", r"\t", r"\n", r"\r", r"\f", r"\a", r"\e", r"\0141", r"\061", r"\01", r"\0", r"\08",
    r"\0377", r"\0400", r"\x41", r"\x4", r"\x", r"\x{61}", r"\x{1F600}", r"\x{}", r"\x{110000}", r"\x{61", r"\x{+1}",
    r"\u0061", r"\u006", r"\ud83d\ude00", r"\ud83d", r"\ude00", r"\cA", r"\ca", r"\c", r"\c[", r"\cé", r"\-", r"\_",
    r"\.", r"\ ", r"\é", r"\<", r"\", r"a\", r"\y", r"\i", r"\C", r"\E", r"a\E", r"\Q", r"\Qa.b\E", r"\Qa.b",
    r"\Qa\E+", r"\Qab\E+", r"\Q\E", r"a\Q\E+", r"\Q^\E", r"\Q\\E", r"\Q1\E", r"(a)\1\Q1\E", r"x\Q.\Ey", r"[\Qa]\E]",
    r"[\Qa-c\E]", r"[\Qa\E-c]", r"[a-\Qc\E]", r"\\Q", r"\\\Q*\E", r"\Q\E\Q.\E", r"\pL", r"\p{L}", r"\p{Lu}",
    r"\p{Ll}", r"\PL", r"\P{L}", r"\p{IsL}", r"\p{IsLu}", r"\p{Alpha}", r"\p{Digit}+", r"\p{Alnum}+", r"\p{Upper}+",
    r"\p{Lower}+", r"\p{Punct}", r"\p{Graph}+", r"\p{Print}+", r"\p{Blank}", r"\p{Cntrl}", r"\p{XDigit}+",
    r"\p{Space}", r"\p{ASCII}+", r"\p{IsAlphabetic}+", r"\p{IsLatin}+", r"\p{IsGreek}", r"\p{IsCyrillic}",
    r"\p{InGreek}", r"\p{InGreekAndCoptic}", r"\p{InBasicLatin}+", r"\p{InBasic Latin}", r"\p{InBASIC_LATIN}",
    r"\p{IsLatn}", r"\p{script=Greek}", r"\p{sc=grek}", r"\p{blk=Cyrillic}", r"\p{block=cyrillic}", r"\p{gc=Lu}",
    r"\p{general_category=Nd}", r"\p{IsUppercase}", r"\p{IsLowercase}", r"\p{IsWhite_Space}", r"\p{IsWhiteSpace}",
    r"\p{IsDigit}+", r"\p{javaLowerCase}", r"\p{javaLetterOrDigit}+", r"\p{javaMirrored}", r"\p{alpha}", r"\p{isL}",
    r"\p{Latin}", r"\p{Foo}", r"\p{IsFoo}", r"\p{InFoo}", r"\p{}", r"\p{L", r"\p", r"\p{^L}", r"\p{LC}", r"\p{LD}",
    r"\p{L1}", r"\p{all}", r"\p{Sc}", r"\p{N}", r"\p{Nd}", r"\p{Zs}", r"\p{C}", r"\p{Cn}", r"\p{Cs}", r"\p{M}",
    r"\p{IsAssigned}", r"\p{IsControl}", r"\p{IsPunctuation}", r"\p{IsTitlecase}", r"\p{IsIdeographic}", r"\p{IsHan}",
    r"\p{IsCommon}+", r"\p{InLatin-1Supplement}", r"\p{InLatin_1_Supplement}", r"\p{InLatin1Supplement}",
    r"\p{IsHex_Digit}", r"\p{IsEmoji}",
    // Places.
    r"\Aa", r"a\z", r"a\Z", r"\Ga", r"a\G", r"\bweb\b.*", r".*\bold\b.*", r"\Bweb", r"a\Bb", r"web\B01", r"\b{g}a",
    r".*\b", r"\b", r"\B", "a^", "$a", "^^a$$", "a$b", "(^a|b)+", "(?:^|-)web.*", r".*(?:^|\.)old", r"(a|$)+", r"\z",
    r"\Z", r"a\Z.*", "a$.*",
    // Classes.
    "[abc]", "[a-c]+", "[^a-c]", "[^abc]+", "[a-", "[a", "[", "[]", "[]a]", "[^]", "[^]a]", "[a]]", "[-a]", "[a-]",
    "[a-c-]", "[a-c-e]+", "[a-z0-9-_]+", r"[\w-.]+", r"[\d-x]+", r"[a-\d]", r"[\d-\w]", "[c-a]", "[a--]", "[--a]+",
    "[+--]", "[-]", "[--]", "[---]", "[^-]", "[^^]", "[a^]", "[^-a]", r"[\^a]", r"[\]]", r"[\\]", r"[\[]", r"[\-]",
    r"[a\-c]", r"[\x61-\x63]", r"[\u0061-c]", r"[\0141-c]", r"[\cA-c]+", r"[\t ]", r"[\e-a]", "[.*+?(){}|$]", "[^.]",
    "[~-]", "[#]", "[é]", "[a-é]", "[^é]", "[a-d[m-p]]", "[a[b]]", "[[a][b]]", "[[a]b]", "[^a[b]]", "[[^a]b]",
    "[a[^b]]", "[a[b]c]+", "[[[a]]]", "[a[]]", "[[]a]", "[a-[b]]", "[a[b]-z]", "[a[b-c]-]", "[a-z&&[def]]",
    "[a-z&&[^bc]]", "[a-z&&[^m-p]]+", "[a-z&&b]", "[a-z&&a-c]", "[a-z&&[a-m]&&[b-z]]", "[a-z&&a-m&&b-z]", "[a&&b]",
    "[^a&&b]", "[^a-z&&[^b]]", "[&&a]", "[a&&]", "[a&&&&b]", "[a&b]", "[a&]", "[&]", "[&a]", r"[a\&&b]", "[a&&^b]",
    "[a&&[b]c]", "[a-c&&b[c]]", "[a-c&&[b][c]]", "[[a-c]&&[b]]", r"[\w&&[^\d]]+", r"[\w&&\D]+", r"[a-c&&\w]",
    "[a-c&&[^b]&&[^c]]", "[a&-c]", "[!-&&b]", r"[\b]", r"[\B]", r"[\A]", r"[\z]", r"[\1]", r"[\R]", r"[\X]",
    r"[\k<a>]", r"[\h]", r"[\v]", r"[\v-z]", r"[\H]", r"[\V]", r"[\s\S]*", r"[\d.]+", r"[^\d.]+", r"[\D]", r"[^\W]+",
    r"[\p{L}]+", r"[\p{L}&&[^\p{Lu}]]+", r"[^\p{L}]", r"[\P{L}]", r"[\pL]", r"[\p{Alpha}_-]+", r"[[:alpha:]]",
    "[[.a.]]", "[a\\", r"[\Qab\E&&a]", "[a&&b", "[a[b]", r"[\N{DIGIT ONE}]",
    // Flags.
    "(?i)web", "(?i)WEB01", "(?i)k", "(?i)[a-c]+", "(?i)[^a]", "(?i)[X-c]+", "(?i)é", "(?i)É", "(?i:a)b", "a(?i)b|c",
    "(a(?i)b)c", "(?i)a(?-i)b", "(?-i)a", "(?i:a(?-i:b))", "(?i)[k]", "(?i)s+", "(?iu)k", "(?iu)K", "(?iu)s",
    "(?iu)S", "(?iu)i", "(?iu)I", "(?iu)[k]", "(?iu)[i]", "(?iu)[a-z]+", "(?iu)[A-Z]+", "(?iu)[J-L]", "(?iu)[j-l]",
    "(?iu)[^k]", "(?iu)é", "(?iu)[à-é]", "(?u)k", "(?iu)[K-k]", "(?iu)[h-j]", "(?iu)[H-J]", "(?iu)[R-T]",
    "(?iu)[s-s]", "(?iu)[I-I]", "(?iu)[K-K]", "(?iu)web", "(?s).", "(?s).+", ".", ".+", "(?-s).", "(?s:.)b?", "(?d).",
    "(?d).+", "(?sd).", "(?m)^a", "(?m)a$", "(?m)^a$", "(?m)^b$", "(?m)^", "(?m)$", "(?d)a$", "(?dm)a$", "(?m)a\\Z",
    "a$\n", "(?m)a$\nb", "(?x)a b", "(?x) a # comment", "(?x)a#b", "(?x)[a b]+", "(?x)[a#b]+", "(?x)a +",
    "(?x)a + ?b", "(?x)a {2}", "(?x)a{ 2}", "(?x)a{2 }", r"(?x)a\ b", r"(?x)x\Q y\E", "(?x)( ?:a)", "(?x)(? :a)",
    "(?x:a b)c d", "(?x)a(?-x) b", "(?x)[a - c]", "(?x)[ ^a]", "(?x)[^ a]", "(?x)[a-c & & b]", "(?x)[a-c &&b]",
    "(?x)[a-c&& b]", "(?x)[a- c]", "(?x)[a -c]", "(?x)[ ]", "(?x)[]a]", r"(?x)\x4 1", r"(?x)\p {L}", r"(?x)(a)\1 1",
    r"(?x)\01 4", "(?x)a # b\nc", "(?xd)a # b\rc", "(?x)a # b\rc", "(?x)#", "(?x) ", "(?x)a| b", "(?x)x y|1 2",
    r"(?U)\w+", r"(?U)\d+", r"(?U)\s", r"(?U)\W", r"(?U)\p{Alpha}+", r"(?U)\p{Punct}", r"(?U)\p{Space}",
    r"(?U)\p{Lower}", r"(?U)\p{Upper}", r"(?U)\p{Alnum}+", r"(?U)\p{Digit}", r"(?U)\p{Cntrl}", r"(?U)\p{Graph}",
    r"(?U)\p{alpha}", r"(?U)\p{IsLatin}+", r"(?U)\b.+", "(?U)é", "(?iU)é", "(?iU)k", "(?Ui)k", "(?-U)a",
    r"(?U)(?-U)\w", "(?U:k)", r"(?i)\p{Lu}", r"(?i)\p{Upper}", r"(?i)\p{Lower}", r"(?i)\p{L}", r"(?i)\p{IsUppercase}",
    r"(?i)\p{javaUpperCase}", r"(?i)[\p{Lu}]", r"(?i)\p{LC}", r"(?i)\P{Lu}", "(?)a", "(?-)a", "(?i-)a", "(?i-i)a",
    "(?i-s)a", "(?-i-s)a", "(?is-mx)a", "(?z)a", "(?i", "(?", "(?:", "(?i:", "(?=", "(?#c)a", "(?P<n>a)", "(?'n'a)",
    "(?c)a", "(?i)*", "(?i)(?-i)a", "(?<a>", "(?<=", "(?<", "(?>", "(?<!",
    // Parentheses.
    "(a", "a)", ")", "(", "(a))", "((a)", "(?:a))", "((((a))))", "(a)(b)", "(ab)+", "(?:ab)+c?", "(ab|ba)*",
    "(a(b(c)?)?)?", "(?:a(?:b|c))+",
    // Sizes.
    "((a{999}){999}){999}", "(?=a)((a{999}){999}){999}", "(a{1,100}){1,100}", "(((a?)*)*)*b",
    "(a|aa)+", "(x+x+)+y", "(?=.*)(a+)+b", "(?=a)(?:a|aa)+",
];

/// Every pattern of the list on every name of the lists.
pub(crate) fn systematic() -> Vec<Question> {
    let names: Vec<String> = NAMES
        .iter()
        .chain(&ODD)
        .map(|name| (*name).to_owned())
        .collect();
    let mut patterns: Vec<String> = PATTERNS.iter().map(|text| (*text).to_owned()).collect();
    patterns.push("(".repeat(60) + "a" + &")".repeat(60));
    patterns.push("[".repeat(60) + "a" + &"]".repeat(60));
    patterns
        .into_iter()
        .map(|pattern| (pattern, names.clone()))
        .collect()
}

/// Patterns from a grammar, some of them damaged, each with names over the same few letters.
pub(crate) fn random(seed: u64, rounds: u64) -> Vec<Question> {
    let mut rng = Rng::with_seed(seed);
    let question = |_| {
        let mut maker = Maker {
            rng: &mut rng,
            groups: 0,
        };
        let mut pattern = maker.alternatives(3);
        if maker.rng.u8(..8) == 0 {
            pattern = maker.damaged(&pattern);
        }
        let names = (0..16).map(|_| maker.name()).collect();
        (pattern, names)
    };
    (0..rounds).map(question).collect()
}

struct Maker<'a> {
    rng: &'a mut Rng,
    groups: usize,
}

impl Maker<'_> {
    fn one_of(&mut self, choices: &[&str]) -> String {
        choices[self.rng.usize(..choices.len())].to_owned()
    }

    fn alternatives(&mut self, depth: usize) -> String {
        let count = match self.rng.u8(..8) {
            0..5 => 1,
            5 | 6 => 2,
            _ => 3,
        };
        let branches: Vec<_> = (0..count).map(|_| self.sequence(depth)).collect();
        branches.join("|")
    }

    fn sequence(&mut self, depth: usize) -> String {
        let count = self.rng.usize(..4);
        (0..count)
            .map(|_| self.atom(depth) + &self.quantifier())
            .collect()
    }

    fn quantifier(&mut self) -> String {
        if self.rng.u8(..5) < 3 {
            return String::new();
        }
        let count = self.one_of(&[
            "?", "*", "+", "*", "+", "{0}", "{1}", "{2}", "{1,}", "{0,1}", "{1,2}", "{2,3}",
        ]);
        let mode = self.one_of(&["", "", "", "?", "+"]);
        count + &mode
    }

    fn atom(&mut self, depth: usize) -> String {
        match self.rng.u8(..24) {
            0..8 => self.one_of(&["a", "b", "A", "B", "1", "-", "_", r"\.", "c", "ab"]),
            8 | 9 => ".".to_owned(),
            10 | 11 => self.class(2),
            12 => self.one_of(&[
                r"\d",
                r"\w",
                r"\W",
                r"\D",
                r"\S",
                r"\p{Alpha}",
                r"\P{Lu}",
                r"\p{L}",
                r"\p{Punct}",
                r"\h",
            ]),
            13 => self.one_of(&["^", "$", r"\b", r"\B", r"\A", r"\z", r"\G", r"\Z"]),
            14 => self.one_of(&[
                "(?i)", "(?-i)", "(?s)", "(?x)", "(?m)", "(?iu)", r"\Qa.\E", r"\x61", r"\0141",
            ]),
            15 if self.groups > 0 => format!(r"\{}", 1 + self.rng.usize(..self.groups)),
            _ if depth == 0 => self.one_of(&["a", "b", "1"]),
            16 | 17 => {
                self.groups += 1;
                format!("({})", self.alternatives(depth - 1))
            }
            18 => format!("(?:{})", self.alternatives(depth - 1)),
            19 => format!("(?i:{})", self.alternatives(depth - 1)),
            20 => format!("(?>{})", self.alternatives(depth - 1)),
            21 => format!("(?={})", self.alternatives(depth - 1)),
            22 => format!("(?!{})", self.alternatives(depth - 1)),
            _ => {
                let open = self.one_of(&["(?<=", "(?<!"]);
                format!("{open}{})", self.alternatives(depth - 1))
            }
        }
    }

    fn class(&mut self, depth: usize) -> String {
        let mut class = self.one_of(&["[", "[", "[^"]);
        for _ in 0..=self.rng.usize(..3) {
            let item = match self.rng.u8(..12) {
                0..4 => self.one_of(&["a", "b", "A", "1", "_", "."]),
                4..7 => self.one_of(&["a-b", "A-C", "0-9", "a-z", "B-b"]),
                7 => self.one_of(&[r"\d", r"\w", r"\W", r"\p{Lu}", r"\s"]),
                8 => self.one_of(&["-", "&", "^", r"\-", r"\]"]),
                9 if depth > 0 => self.class(depth - 1),
                10 if depth > 0 => format!("&&{}", self.class(depth - 1)),
                11 => "&&a-c".to_owned(),
                _ => "a".to_owned(),
            };
            class.push_str(&item);
        }
        class + "]"
    }

    /// A character changed, added or taken away.
    fn damaged(&mut self, pattern: &str) -> String {
        let mut chars: Vec<_> = pattern.chars().collect();
        let at = self.rng.usize(..=chars.len());
        let odd = *self
            .rng
            .choice(b"()[]{}*+?|\\^$-&.1aE:<>=!i #")
            .unwrap_or(&b'a');
        if self.rng.bool() && at < chars.len() {
            chars.remove(at);
        } else {
            chars.insert(at, char::from(odd));
        }
        chars.into_iter().collect()
    }

    fn name(&mut self) -> String {
        let len = self.rng.usize(..7);
        (0..len)
            .map(|_| *self.rng.choice(b"aaabbbABc11-_.").unwrap_or(&b'a'))
            .map(char::from)
            .collect()
    }
}
