//! Which of the listed VMs a run saves, without any request. [`Selection`] judges a name; here names meet what there is:
//! a resource group, another case, a name that several VMs share or none has.

use serde_json::Value;

use super::Error;
use crate::azure::ResourceId;
use crate::config::{NamePattern, Selection};
use crate::notice::Notices;
use crate::{catalog, json};

/// A VM that may be saved.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: ResourceId,
    pub(super) name: String,
    pub(super) resource_group: String,
    /// `properties.vmId`, lower case with dashes.
    pub(super) uuid: String,
}

/// Most characters of a name; Azure allows a virtual machine 64.
pub(super) const LONGEST_NAME: usize = 128;

/// An element of a VM list.
#[derive(Clone, Debug)]
pub(super) enum Listed {
    Vm(Candidate),
    /// It has no usable name, id or UUID, so nothing can be saved under its name. That matters only if it is selected.
    Incomplete {
        name: String,
        resource_group: String,
    },
}

impl Listed {
    pub(super) fn new(vm: &Value) -> Self {
        let id = json::text(vm, "/id").and_then(ResourceId::parse);
        let name = json::text(vm, "/name").or(id.as_ref().map(ResourceId::name));
        let name = name.unwrap_or("without a name");
        // Names are matched, shown, and stand in the catalog.
        let shown: String = catalog::component(name)
            .chars()
            .take(LONGEST_NAME)
            .collect();
        let usable = shown == name;
        let name = shown;
        let group = id.as_ref().map(ResourceId::resource_group);
        let resource_group = group.unwrap_or("unknown").to_owned();
        let uuid: Option<uuid::Uuid> =
            json::text(vm, "/properties/vmId").and_then(|text| text.parse().ok());
        match (id, uuid) {
            (Some(id), Some(uuid)) if usable => Self::Vm(Candidate {
                id,
                name,
                resource_group,
                uuid: uuid.hyphenated().to_string(),
            }),
            _ => Self::Incomplete {
                name,
                resource_group,
            },
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Vm(Candidate { name, .. }) | Self::Incomplete { name, .. } => name,
        }
    }

    pub(super) fn resource_group(&self) -> &str {
        match self {
            Self::Vm(Candidate { resource_group, .. })
            | Self::Incomplete { resource_group, .. } => resource_group,
        }
    }

    /// # Errors
    ///
    /// An element that says too little.
    pub(super) fn candidate(&self) -> Result<&Candidate, Error> {
        match self {
            Self::Vm(candidate) => Ok(candidate),
            Self::Incomplete { name, .. } => Err(Error::Unsavable {
                what: format!("virtual machine {name}"),
                reason: "Azure's list gives no usable name, resource id or properties.vmId for it"
                    .into(),
            }),
        }
    }
}

/// The listed VMs that pass `selection`, ordered by name and resource group. What the user may not expect (a name taken
/// in another case, one name in several groups) is said in `notices`.
///
/// # Errors
///
/// [`Error::Selection`]: the VM named by `vm` is not there, nothing passes, or an expression has no verdict on a name.
pub(super) fn select(
    listed: Vec<Listed>,
    selection: &Selection,
    notices: &Notices,
) -> Result<Vec<Listed>, Error> {
    let mut listed: Vec<_> = listed
        .into_iter()
        .filter(|vm| {
            selection
                .resource_group
                .as_deref()
                .is_none_or(|group| group.eq_ignore_ascii_case(vm.resource_group()))
        })
        .collect();
    listed.sort_by(|a, b| (a.name(), a.resource_group()).cmp(&(b.name(), b.resource_group())));

    let named = match &selection.vm {
        Some(wanted) => Some(resolve_name(&listed, wanted, selection, notices)?),
        None => None,
    };
    let hints = whole_name_hints(&listed, selection);
    let count = listed.len();
    let mut chosen = Vec::new();
    for vm in listed {
        // What is named needs no verdict of the expressions.
        let passes = named.as_deref() == Some(vm.name())
            || selection
                .choose(vm.name())
                .map_err(|undecided| Error::Selection(undecided.to_string()))?
                .is_chosen();
        if passes {
            chosen.push(vm);
        }
    }
    if chosen.is_empty() {
        let mut text = nothing_passes(count, selection);
        for hint in hints {
            text.push_str("; ");
            text.push_str(&hint);
        }
        return Err(Error::Selection(text));
    }
    for hint in hints {
        notices.warning(hint);
    }
    report_shared_names(&chosen, notices);
    Ok(chosen)
}

/// The spelling under which the VM named `wanted` exists.
fn resolve_name(
    listed: &[Listed],
    wanted: &str,
    selection: &Selection,
    notices: &Notices,
) -> Result<String, Error> {
    if listed.iter().any(|vm| vm.name() == wanted) {
        return Ok(wanted.to_owned());
    }
    let folded = wanted.to_lowercase();
    let similar: Vec<_> = listed
        .iter()
        .filter(|vm| vm.name().to_lowercase() == folded)
        .collect();
    match similar.as_slice() {
        [] => Err(Error::Selection(format!(
            "no virtual machine is named {wanted}{} ({} can be seen); check the name with 'azure-vm list', and that the \
             service principal may read it",
            in_group(selection),
            listed.len(),
        ))),
        [only] => {
            notices.info(format!(
                "vm={wanted}: taking virtual machine {} (resource group {}), the only one of that name when case is ignored",
                only.name(), only.resource_group()
            ));
            Ok(only.name().to_owned())
        }
        several => Err(Error::Selection(format!(
            "no virtual machine is named exactly {wanted}{}, but several are when case is ignored: {}",
            in_group(selection),
            several
                .iter()
                .map(|vm| format!("{} (resource group {})", vm.name(), vm.resource_group()))
                .collect::<Vec<_>>()
                .join(", "),
        ))),
    }
}

fn nothing_passes(count: usize, selection: &Selection) -> String {
    let group = in_group(selection);
    if count == 0 {
        return format!(
            "Azure lists no virtual machine{group}; check subscription_id and the role of the service principal"
        );
    }
    let pattern = |pattern: &Option<NamePattern>| pattern.as_ref().map(ToString::to_string);
    match (pattern(&selection.include), pattern(&selection.exclude)) {
        (Some(include), Some(exclude)) => {
            format!(
                "none of {count} virtual machines{group} passes include={include} and exclude={exclude}"
            )
        }
        (Some(include), None) => {
            format!("none of {count} virtual machines{group} passes include={include}")
        }
        (None, _) => format!("exclude removes all {count} virtual machines{group}"),
    }
}

/// What to say of expressions that match no name, but would if a part of it were enough.
fn whole_name_hints(listed: &[Listed], selection: &Selection) -> Vec<String> {
    let mut hints = Vec::new();
    for (key, pattern) in [
        ("include", &selection.include),
        ("exclude", &selection.exclude),
    ] {
        let Some(pattern) = pattern else { continue };
        let mut part = None;
        for vm in listed {
            if pattern.matches(vm.name()).unwrap_or(true) {
                part = None;
                break;
            }
            part = part.or_else(|| pattern.is_found_in(vm.name()).then_some(vm.name()));
        }
        if let Some(name) = part {
            hints.push(format!(
                "{key}={pattern} matches no whole name, only a part, as in {name}: write {key}={} to match names that contain it",
                pattern.anywhere()
            ));
        }
    }
    hints
}

fn in_group(selection: &Selection) -> String {
    selection
        .resource_group
        .as_ref()
        .map(|group| format!(" in resource group {group}"))
        .unwrap_or_default()
}

/// `sorted` is in the order of [`select`], so equal names are neighbours.
fn report_shared_names(sorted: &[Listed], notices: &Notices) {
    for same in sorted.chunk_by(|a, b| a.name() == b.name()) {
        if let [first, _, ..] = same {
            let groups: Vec<_> = same.iter().map(|vm| vm.resource_group()).collect();
            notices.info(format!(
                "{} virtual machines are named {}, in the resource groups {}; all are saved",
                same.len(),
                first.name(),
                groups.join(", ")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vm(group: &str, name: &str) -> Listed {
        Listed::new(&json!({
            "id": format!("/subscriptions/s/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"),
            "name": name,
            "properties": { "vmId": "3D1F0C52-7A44-4E0E-9A53-8B1D6C2F9E10" },
        }))
    }

    fn there_are() -> Vec<Listed> {
        vec![
            vm("b", "web01"),
            vm("a", "web01"),
            vm("a", "Ledger"),
            vm("a", "old-web"),
        ]
    }

    /// Chosen VMs as `group/name`, and the notices.
    fn chosen(selection: &Selection) -> (Result<Vec<String>, String>, Vec<String>) {
        let notices = Notices::default();
        let chosen = select(there_are(), selection, &notices)
            .map(|vms| {
                vms.iter()
                    .map(|vm| format!("{}/{}", vm.resource_group(), vm.name()))
                    .collect()
            })
            .map_err(|error| error.to_string());
        let said = std::iter::from_fn(|| notices.pop())
            .map(|notice| notice.text)
            .collect();
        (chosen, said)
    }

    fn pattern(text: &str) -> Option<NamePattern> {
        Some(NamePattern::new(text).unwrap())
    }

    #[test]
    fn a_name_that_is_none_cannot_be_saved() {
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a";
        let listed = |name: &str| {
            let properties = serde_json::json!({ "vmId": "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10" });
            Listed::new(&serde_json::json!({ "id": id, "name": name, "properties": properties }))
        };
        assert!(listed("a").candidate().is_ok());
        for name in ["../a", "a\nb", "a\0", &"a".repeat(100_000)] {
            let listed = listed(name);
            assert!(listed.candidate().is_err(), "{name:.20}");
            assert!(listed.name().len() <= LONGEST_NAME);
            assert!(!listed.name().contains(['/', '\n', '\0']));
        }
    }

    #[test]
    fn uuids_are_lower_case() {
        let vm = vm("g", "n");
        assert_eq!(
            vm.candidate().unwrap().uuid,
            "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10"
        );
    }

    #[test]
    fn what_a_list_says_too_little_of_matters_only_if_it_is_selected() {
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/x";
        for (element, name, group) in [
            (json!({ "name": "n" }), "n", "unknown"),
            (json!({ "id": id, "properties": { "vmId": "?" } }), "x", "g"),
            (json!({}), "without a name", "unknown"),
        ] {
            let listed = Listed::new(&element);
            assert_eq!((listed.name(), listed.resource_group()), (name, group));
            assert!(listed.candidate().is_err());
            let selection = Selection {
                include: pattern("Ledger"),
                ..Selection::default()
            };
            let there_are = vec![listed, vm("a", "Ledger")];
            let all = select(
                there_are.clone(),
                &Selection::default(),
                &Notices::default(),
            );
            assert_eq!(all.unwrap().len(), 2);
            let some = select(there_are, &selection, &Notices::default()).unwrap();
            assert!(matches!(some.as_slice(), [Listed::Vm(_)]));
        }
    }

    #[test]
    fn all_are_taken_in_order_and_shared_names_are_told_apart() {
        let (vms, said) = chosen(&Selection::default());
        assert_eq!(
            vms.unwrap(),
            ["a/Ledger", "a/old-web", "a/web01", "b/web01"]
        );
        assert!(
            said[0].contains("web01") && said[0].contains("a, b"),
            "{said:?}"
        );
    }

    #[test]
    fn a_group_narrows_in_any_case() {
        let (vms, said) = chosen(&Selection {
            resource_group: Some("B".into()),
            ..Selection::default()
        });
        assert_eq!(vms.unwrap(), ["b/web01"]);
        assert!(said.is_empty());
    }

    #[test]
    fn a_name_in_another_case_is_taken_if_it_is_the_only_one() {
        let selection = Selection {
            vm: Some("ledger".into()),
            exclude: pattern("Ledger"),
            ..Selection::default()
        };
        let (vms, said) = chosen(&selection);
        assert_eq!(vms.unwrap(), ["a/Ledger"]);
        assert!(said[0].contains("Ledger"), "{said:?}");

        let (vms, _) = chosen(&Selection {
            vm: Some("WEB01".into()),
            ..Selection::default()
        });
        assert!(
            vms.unwrap_err()
                .contains("web01 (resource group a), web01 (resource group b)")
        );
    }

    #[test]
    fn a_missing_name_is_an_error_even_if_others_are_included() {
        let selection = Selection {
            vm: Some("web02".into()),
            include: pattern("web01"),
            ..Selection::default()
        };
        assert!(chosen(&selection).0.unwrap_err().contains("web02"));
    }

    #[test]
    fn an_empty_selection_is_an_error_with_its_reason() {
        let group = |group: &str| Selection {
            resource_group: Some(group.into()),
            ..Selection::default()
        };
        let patterns = |include: &str, exclude: &str| Selection {
            include: (!include.is_empty()).then(|| pattern(include)).flatten(),
            exclude: (!exclude.is_empty()).then(|| pattern(exclude)).flatten(),
            ..Selection::default()
        };
        for (selection, want) in [
            (
                patterns("web", ""),
                "none of 4 virtual machines passes include=web; include=web matches no whole name, only a part, as in \
                 old-web: write include=(.*)web(.*) to match names that contain it",
            ),
            (
                patterns("db", ""),
                "none of 4 virtual machines passes include=db",
            ),
            (
                patterns("(.*)web(.*)", "(.*)web(.*)"),
                "none of 4 virtual machines passes include=(.*)web(.*) and exclude=(.*)web(.*)",
            ),
            (
                patterns("", "(.*)"),
                "exclude removes all 4 virtual machines",
            ),
            (
                group("c"),
                "Azure lists no virtual machine in resource group c; check subscription_id and the role of the service principal",
            ),
        ] {
            let error = chosen(&selection).0.unwrap_err();
            assert_eq!(error, format!("select virtual machines: {want}"));
        }
    }

    #[test]
    fn an_exclusion_that_misses_is_mentioned() {
        let (vms, said) = chosen(&Selection {
            exclude: pattern("old|older"),
            ..Selection::default()
        });
        assert_eq!(vms.unwrap().len(), 4);
        assert!(said[0].contains("exclude=.*(?:old|older).*"), "{said:?}");
        let (_, said) = chosen(&Selection {
            exclude: pattern("old(.*)"),
            ..Selection::default()
        });
        assert!(!said.join("").contains("exclude"), "{said:?}");
    }

    #[test]
    fn an_expression_without_a_verdict_stops_the_job() {
        let mut there_are = there_are();
        there_are.push(vm("a", &"x".repeat(60)));
        let selection = Selection {
            exclude: pattern("(?=.*)(x+x+)+y"),
            ..Selection::default()
        };
        let error = select(there_are, &selection, &Notices::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("(x+x+)+y") && error.contains(&"x".repeat(60)),
            "{error}"
        );
    }
}
