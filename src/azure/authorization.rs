//! What the service principal may do, and where.

use super::arm::Subject;
use super::generated::authorization::{self, Permission};
use super::{Azure, Error};

/// The caller's rights in one resource group, inherited ones included. Locks, policies and deny assignments are not in
/// them ("Understand Azure role definitions", Azure RBAC documentation).
#[derive(Clone, Debug)]
pub struct Rights(Vec<Permission>);

impl Azure {
    /// What the service principal may do in a resource group; every page of the answer is read.
    ///
    /// # Errors
    ///
    /// Azure's refusal: asking needs `Microsoft.Authorization/permissions/read`.
    pub async fn rights(&self, resource_group: &str) -> Result<Rights, Error> {
        let subject = Subject::new("read rights in resource group", &resource_group);
        let call = authorization::permissions_list_for_resource_group(
            self.endpoint(),
            &self.versions,
            self.subscription_id(),
            resource_group,
        );
        let permissions = self.list(subject, call).await?;
        permissions
            .into_iter()
            .map(|permission| subject.decode(permission))
            .collect::<Result<_, _>>()
            .map(Rights)
    }
}

impl Rights {
    /// Whether `action` (such as `Microsoft.Compute/disks/read`) is allowed: by at least one role that does not leave it
    /// out.
    #[must_use]
    pub fn allow(&self, action: &str) -> bool {
        let any = |patterns: &Option<Vec<String>>| {
            patterns
                .iter()
                .flatten()
                .any(|pattern| matches(pattern, action))
        };
        self.0
            .iter()
            .any(|role| any(&role.actions) && !any(&role.not_actions))
    }
}

/// Whether `pattern`, in which `*` stands for any characters, describes the whole `action`; case does not count.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = action.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        // The leftmost place leaves most for the parts that follow.
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(actions: &[&str], not_actions: &[&str]) -> Permission {
        let owned = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
        Permission {
            actions: owned(actions),
            not_actions: owned(not_actions),
            ..Permission::default()
        }
    }

    #[test]
    fn patterns_describe_whole_actions() {
        for (pattern, action, expected) in [
            ("*", "Microsoft.Compute/disks/read", true),
            ("*/read", "Microsoft.Compute/disks/read", true),
            ("*/read", "Microsoft.Compute/disks/write", false),
            (
                "microsoft.compute/DISKS/read",
                "Microsoft.Compute/disks/read",
                true,
            ),
            (
                "Microsoft.Compute/disks",
                "Microsoft.Compute/disks/read",
                false,
            ),
            (
                "Microsoft.Compute/*/read",
                "Microsoft.Compute/disks/read",
                true,
            ),
            (
                "Microsoft.Compute/*/a/*/z",
                "Microsoft.Compute/b/a/c/z",
                true,
            ),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*a*b*", "bba", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, action), expected, "{pattern} {action}");
        }
    }

    #[test]
    fn a_role_takes_away_only_from_itself() {
        let write = "Microsoft.Compute/snapshots/write";
        let contributor = role(&["*"], &["Microsoft.Compute/snapshots/*"]);
        assert!(!Rights(vec![]).allow(write));
        assert!(!Rights(vec![contributor.clone()]).allow(write));
        assert!(Rights(vec![contributor.clone()]).allow("Microsoft.Compute/disks/read"));
        let backup = role(&[write], &[]);
        assert!(Rights(vec![contributor, backup]).allow(write));
    }
}
