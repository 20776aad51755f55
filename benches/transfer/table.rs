//! The table: a line per thing measured, a column per contender, the targets and whether they are met.

use crate::Account;
use crate::contenders::Contender;

/// What a cell counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Seconds,
    Megabytes,
    Times,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.2} s"),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::Times => format!("{value:.2}"),
        }
    }
}

/// What `azure-vm` is to reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// So many times of what another one needs.
    Of(f64, Contender),
    /// So much.
    AtMost(f64),
}

/// One thing measured.
pub(crate) struct Line {
    name: String,
    unit: Unit,
    cells: Vec<(Contender, f64)>,
    targets: Vec<Target>,
}

impl Line {
    fn cell(&self, contender: Contender) -> Option<f64> {
        let found = self.cells.iter().find(|(whose, _)| *whose == contender);
        found.map(|(_, value)| *value)
    }

    fn shown(&self, contender: Contender) -> String {
        let value = self.cell(contender);
        value.map_or("–".into(), |value| self.unit.show(value))
    }

    fn wanted(&self) -> String {
        let words = self.targets.iter().map(|target| match target {
            Target::Of(factor, other) => format!("{factor} x {}", other.name()),
            Target::AtMost(value) => self.unit.show(*value),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn met(&self) -> String {
        let words = self.targets.iter().map(|target| self.verdict(*target));
        words.collect::<Vec<_>>().join(", ")
    }

    fn verdict(&self, target: Target) -> String {
        let word = |met| if met { "yes" } else { "no" };
        let Some(ours) = self.cell(Contender::AzureVm) else {
            return "not measured".into();
        };
        match target {
            Target::AtMost(limit) => word(ours <= limit).into(),
            Target::Of(limit, other) => match self.cell(other) {
                None => "not measured".into(),
                Some(theirs) => {
                    let ratio = ours / theirs;
                    format!("{} ({ratio:.2})", word(ratio <= limit))
                }
            },
        }
    }
}

/// All lines of a run.
#[derive(Default)]
pub(crate) struct Table {
    lines: Vec<Line>,
}

impl Table {
    pub(crate) fn print_head() {
        print!("{:38}", "");
        for contender in Contender::ALL {
            print!("{:>11}", contender.name());
        }
        println!("   target; met");
    }

    /// Adds a line and prints it; none if nothing was measured.
    pub(crate) fn add(
        &mut self,
        name: &str,
        unit: Unit,
        targets: &[Target],
        accounts: &[Account],
        value: impl Fn(&Account) -> f64,
    ) {
        if accounts.is_empty() {
            return;
        }
        let mut cells: Vec<(Contender, f64)> = Vec::new();
        // Accounts of several modes: the highest counts.
        for account in accounts {
            let value = value(account);
            match cells
                .iter_mut()
                .find(|(whose, _)| *whose == account.contender)
            {
                Some((_, highest)) => *highest = highest.max(value),
                None => cells.push((account.contender, value)),
            }
        }
        let line = Line {
            name: name.into(),
            unit,
            cells,
            targets: targets.to_vec(),
        };
        print!("{:38}", line.name);
        for contender in Contender::ALL {
            print!("{:>11}", line.shown(contender));
        }
        println!("   {}; {}", line.wanted(), line.met());
        self.lines.push(line);
    }

    pub(crate) fn markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let names = Contender::ALL.map(|contender| contender.name().to_owned());
        let head = ["measured".to_owned()]
            .into_iter()
            .chain(names)
            .chain(["target".into(), "met".into()])
            .collect::<Vec<_>>();
        let rule = vec!["---".to_owned(); head.len()];
        let mut text = row(head) + &row(rule);
        for line in &self.lines {
            let cells = Contender::ALL.map(|contender| line.shown(contender));
            let name = [line.name.clone()];
            let last = [line.wanted(), line.met()];
            text += &row(name.into_iter().chain(cells).chain(last).collect());
        }
        text
    }
}
