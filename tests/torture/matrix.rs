//! The matrix: what is asked of Azure, as the emulator counted it without a fault, times what may go wrong with it.

use std::collections::BTreeMap;

use mock_server::{Action, ByteSize, Counters, Fault, OperationCounters, RetryAfter, When};

use crate::required::requests;
use crate::scene::{AHEAD, OTHER_SECRET, Scene, Way};

/// A kind of request in a scene.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) scene: Scene,
    pub(crate) operation: String,
    pub(crate) counted: OperationCounters,
}

/// Which of the requests of a kind go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The first, once.
    First,
    /// One in the middle, once.
    Middle,
    /// The last, once.
    Last,
    /// All.
    Always,
    /// All from the middle on.
    FromMiddle,
}

impl Place {
    const ALL: [Self; 5] = [
        Self::First,
        Self::Middle,
        Self::Last,
        Self::Always,
        Self::FromMiddle,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Middle => "middle",
            Self::Last => "last",
            Self::Always => "always",
            Self::FromMiddle => "from-middle",
        }
    }

    /// `None` if it is no other place than the first.
    fn when(self, requests: u64) -> Option<When> {
        let middle = requests / 2 + 1;
        match self {
            Self::First => Some(When::Nth(1)),
            Self::Always => Some(When::From(1)),
            Self::Middle if requests > 2 => Some(When::Nth(middle)),
            Self::Last if requests > 1 => Some(When::Nth(requests)),
            Self::FromMiddle if requests > 1 => Some(When::From(middle)),
            Self::Middle | Self::Last | Self::FromMiddle => None,
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) name: &'static str,
    /// What the emulator does; whether for good.
    action: fn(bool) -> Action,
    /// Which kinds of requests it can happen to.
    applies: fn(&Kind) -> bool,
    /// Only after one of them went well.
    after_success: bool,
    /// It can only happen on this way, if not on the plain one.
    pub(crate) way: Way,
}

/// Letters of the endings.
pub(crate) const SUCCEEDED: char = 'S';
pub(crate) const FAILED: char = 'F';
pub(crate) const WRONG: char = '!';
/// So many requests did not come this time, or this one had nothing to spoil: the job went as without a fault.
pub(crate) const NOT_FIRED: char = '·';

/// Less than any body has.
const SHORTEST: ByteSize = ByteSize(10);

/// What the emulator calls a question for the address of a name.
const LOOK_UP: &str = "LookUp";

fn is_request(kind: &Kind) -> bool {
    kind.operation != LOOK_UP
}

fn has_body(kind: &Kind) -> bool {
    kind.counted.bytes_out > 0
}

fn reads_range(kind: &Kind) -> bool {
    matches!(kind.operation.as_str(), "Blob_Get" | "StorageBlob_Get")
}

fn takes_effect(kind: &Kind) -> bool {
    let changing = [
        "Token",
        "_CreateOrUpdate",
        "_Create",
        "_Update",
        "_Delete",
        "_GrantAccess",
        "_RevokeAccess",
        "_PutPage",
        "_ClearPages",
        "_StartCopy",
        "_AbortCopy",
    ];
    changing.iter().any(|end| kind.operation.ends_with(end))
}

fn is_arm(kind: &Kind) -> bool {
    let others = [LOOK_UP, "Token", "Blob_", "Container_", "StorageBlob_"];
    !others.iter().any(|other| kind.operation.starts_with(other))
}

fn begins_operation(kind: &Kind) -> bool {
    kind.operation == "StorageBlob_StartCopy" || is_arm(kind) && takes_effect(kind)
}

/// What it asks for is gone if the answer says that it is not there.
fn takes_away(kind: &Kind) -> bool {
    ["_Delete", "_RevokeAccess"]
        .iter()
        .any(|end| kind.operation.ends_with(end))
}

/// In its address, or for the source of a copy.
fn needs_sas(kind: &Kind) -> bool {
    kind.operation.starts_with("Blob_") || kind.operation == "StorageBlob_StartCopy"
}

fn needs_base(kind: &Kind) -> bool {
    kind.operation == "Blob_GetPageRangesDiff"
}

fn is_of_account(kind: &Kind) -> bool {
    let account = ["Container_", "StorageBlob_"];
    account.iter().any(|of| kind.operation.starts_with(of))
}

/// Seconds that something lasts.
fn lasting(for_good: bool) -> u32 {
    if for_good { 1_000_000_000 } else { 5 }
}

fn refusal(status: u16, retry_after: Option<RetryAfter>) -> Action {
    Action::Status {
        status,
        code: None,
        body: None,
        retry_after,
    }
}

/// All that goes wrong.
pub(crate) fn troubles() -> Vec<Trouble> {
    let trouble = |name, action, applies| Trouble {
        name,
        action,
        applies,
        after_success: false,
        way: Way::Plain,
    };
    vec![
        trouble("reset before the head", |_| Action::Reset, is_request),
        trouble(
            "reset in mid-body",
            |_| Action::CutBody { after: SHORTEST },
            has_body,
        ),
        trouble(
            "stalled body",
            |_| Action::Stall { after: SHORTEST },
            has_body,
        ),
        trouble(
            "short body",
            |_| Action::ShortBody { by: ByteSize(100) },
            has_body,
        ),
        trouble(
            "wrong Content-Range",
            |_| Action::WrongContentRange { by: ByteSize(512) },
            reads_range,
        ),
        trouble("408", |_| refusal(408, None), is_request),
        trouble("429", |_| refusal(429, None), is_request),
        trouble(
            "429, seconds",
            |_| refusal(429, Some(RetryAfter::Seconds(17))),
            is_request,
        ),
        trouble(
            "429, date",
            |_| refusal(429, Some(RetryAfter::DateInSeconds(17))),
            is_request,
        ),
        trouble("500", |_| refusal(500, None), is_request),
        trouble(
            "502 with HTML",
            |_| Action::Status {
                status: 502,
                code: None,
                body: Some("<html><head><title>502 Bad Gateway</title></head></html>".into()),
                retry_after: None,
            },
            is_request,
        ),
        trouble("503", |_| refusal(503, None), is_request),
        Trouble {
            after_success: true,
            ..trouble(
                "404 after success",
                |_| refusal(404, None),
                |kind| is_request(kind) && !takes_away(kind),
            )
        },
        trouble(
            "body of another range",
            |_| Action::OtherRange { by: ByteSize(512) },
            reads_range,
        ),
        trouble(
            "connection refused",
            |for_good| Action::Refuse {
                seconds: lasting(for_good),
            },
            is_request,
        ),
        trouble(
            "names without address",
            |for_good| Action::ForgetNames {
                seconds: lasting(for_good),
            },
            |_| true,
        ),
        Trouble {
            way: Way::Tls,
            ..trouble(
                "certificate changed",
                |for_good| Action::UntrustedCertificate {
                    seconds: lasting(for_good),
                },
                is_request,
            )
        },
        trouble(
            "clock 20 minutes ahead",
            |_| Action::SkewClock {
                seconds: AHEAD.as_secs().cast_signed(),
            },
            is_request,
        ),
        trouble(
            "clock 20 minutes behind",
            |_| Action::SkewClock {
                seconds: -AHEAD.as_secs().cast_signed(),
            },
            is_request,
        ),
        trouble("expired token", |_| Action::ExpireToken, is_arm),
        trouble(
            "secret rotated",
            |_| Action::RotateSecret {
                to: OTHER_SECRET.into(),
            },
            is_arm,
        ),
        trouble(
            "operation fails",
            |_| Action::FailOperation {
                code: "InternalExecutionError".into(),
                message: "An internal execution error occurred.".into(),
            },
            begins_operation,
        ),
        trouble(
            "operation never ends",
            |_| Action::NeverEnding,
            begins_operation,
        ),
        trouble("expired SAS", |_| Action::ExpireSas, needs_sas),
        trouble("revoked SAS", |_| Action::RevokeSas, needs_sas),
        // One that ran out is answered alike, here and below.
        trouble("revoked SAS of base", |_| Action::RevokeBaseSas, needs_base),
        Trouble {
            way: Way::Signed,
            ..trouble(
                "revoked SAS of account",
                |_| Action::RevokeSas,
                is_of_account,
            )
        },
        trouble("lost answer", |_| Action::LostAnswer, takes_effect),
    ]
}

/// One trouble with one kind of request at one place.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) trouble: Trouble,
    pub(crate) place: Place,
    when: When,
}

impl Cell {
    pub(crate) fn fault(&self) -> Fault {
        let for_good = matches!(self.place, Place::Always | Place::FromMiddle);
        Fault {
            when: self.when.clone(),
            ..Fault::new(&self.kind.operation, (self.trouble.action)(for_good))
        }
    }

    /// What goes wrong, wherever.
    pub(crate) fn pair(&self) -> (Scene, &str, &str) {
        (self.kind.scene, &self.kind.operation, self.trouble.name)
    }

    /// For the log of a schedule.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} of {} ({:?})",
            self.trouble.name, self.kind.operation, self.when
        )
    }

    pub(crate) fn name(&self) -> String {
        format!(
            "{} / {} / {} / {}",
            self.kind.scene.name(),
            self.kind.operation,
            self.trouble.name,
            self.place.name()
        )
    }
}

/// What a schedule does to a scene: several troubles, most of them once. Drawn from what a scene asks for at least and not
/// from what was counted, so that a seed is always the same schedule.
pub(crate) fn schedule(
    rng: &mut fastrand::Rng,
    scene: Scene,
    way: Way,
    kinds: &[Kind],
) -> Vec<Cell> {
    let requests = requests(scene);
    let troubles = troubles();
    let mut cells = Vec::new();
    let wanted = rng.usize(2..=5);
    while cells.len() < wanted {
        let (operation, requests) = requests[rng.usize(..requests.len())];
        let trouble = troubles[rng.usize(..troubles.len())];
        let mut of_scene = kinds.iter().filter(|kind| kind.scene == scene);
        let kind = of_scene.find(|kind| kind.operation == operation);
        let kind = kind.expect("a required kind");
        let first = if trouble.after_success { 2 } else { 1 };
        let is_here = trouble.way == Way::Plain || trouble.way == way;
        if !is_here || requests < first || !(trouble.applies)(kind) {
            continue;
        }
        let number = rng.u64(first..=requests);
        let (place, when) = match rng.u8(..20) {
            0 => (Place::FromMiddle, When::From(number)),
            _ => (Place::Middle, When::Nth(number)),
        };
        cells.push(Cell {
            kind: kind.clone(),
            trouble,
            place,
            when,
        });
    }
    cells
}

/// What a cancelled backup did not ask for before it was cancelled.
fn is_asked_once_cancelled(operation: &str) -> bool {
    let cleaning = ["_AbortCopy", "_Delete", "_RevokeAccess"];
    cleaning.iter().any(|end| operation.ends_with(end))
}

/// The kinds of a scene; `without` counted what it asks for besides what it is about.
pub(crate) fn kinds(scene: Scene, counters: &Counters, without: Option<&Counters>) -> Vec<Kind> {
    let besides = |operation: &String| {
        let counted = without.and_then(|without| without.operations.get(operation));
        counted.map_or(0, |counted| counted.requests)
    };
    let operations = counters.operations.iter();
    operations
        .filter(|(operation, counted)| {
            if scene == Scene::Cancelled {
                is_asked_once_cancelled(operation)
            } else {
                counted.requests > besides(operation)
            }
        })
        .map(|(operation, counted)| Kind {
            scene,
            operation: operation.clone(),
            counted: counted.clone(),
        })
        .collect()
}

/// All cells, and how many pairs of kind and trouble make no sense.
pub(crate) fn cells(kinds: &[Kind]) -> (Vec<Cell>, usize) {
    let mut cells = Vec::new();
    let mut left_out = 0;
    for kind in kinds {
        for trouble in troubles() {
            if !(trouble.applies)(kind) {
                left_out += 1;
                continue;
            }
            for place in Place::ALL {
                if trouble.after_success && matches!(place, Place::First | Place::Always) {
                    continue;
                }
                if let Some(when) = place.when(kind.counted.requests) {
                    cells.push(Cell {
                        kind: kind.clone(),
                        trouble,
                        place,
                        when,
                    });
                }
            }
        }
    }
    (cells, left_out)
}

/// A row for each kind, a column for each trouble; in a field a letter for each place.
pub(crate) fn print(kinds: &[Kind], letters: &BTreeMap<String, char>) {
    let troubles = troubles();
    for (number, trouble) in troubles.iter().enumerate() {
        println!("{:>4}  {}", number + 1, trouble.name);
    }
    println!(
        "{SUCCEEDED} succeeded, {FAILED} failed cleanly, {WRONG} wrong, {NOT_FIRED} the fault never fired, – makes no sense; \
         for {}",
        Place::ALL.map(Place::name).join(", ")
    );
    let head: Vec<_> = (1..=troubles.len())
        .map(|number| format!("{number:<6}"))
        .collect();
    println!("{:44}{}", "", head.concat());
    for kind in kinds {
        let mut row = format!(
            "{:<44}",
            format!("{} {}", kind.scene.name(), kind.operation)
        );
        for trouble in &troubles {
            let mut field = String::new();
            for place in Place::ALL {
                let name = format!(
                    "{} / {} / {} / {}",
                    kind.scene.name(),
                    kind.operation,
                    trouble.name,
                    place.name()
                );
                field.extend(letters.get(&name));
            }
            if field.is_empty() {
                field.push('–');
            }
            row.push_str(&format!("{field:<6}"));
        }
        println!("{}", row.trim_end());
    }
}
