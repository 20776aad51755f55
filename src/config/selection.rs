//! Which VM names a job is about: the truth table of `vm`, `include` and `exclude`.

use super::{MatchError, NamePattern};

/// Which VMs of the subscription are saved.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Literal name.
    pub vm: Option<String>,
    /// Whole-name pattern.
    pub include: Option<NamePattern>,
    /// Whole-name pattern.
    pub exclude: Option<NamePattern>,
    /// Only VMs of this group (extension).
    pub resource_group: Option<String>,
}

/// Why a name is chosen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Chosen: it is the name that `vm` gives, whatever the other two say.
    Named,
    /// Chosen: it matches `include` and does not match `exclude`.
    Included,
    /// Chosen: neither `vm` nor `include` is given, and it does not match `exclude`.
    Unrestricted,
    /// Not chosen: `vm` gives another name, and there is no `include`.
    NotNamed,
    /// Not chosen: it does not match `include`.
    NotIncluded,
    /// Not chosen: it passes so far, but matches `exclude`.
    Excluded,
}

impl Selection {
    /// What the parameters say about `name`. Exact: a `vm` in another case is another name, and the resource group is not
    /// looked at.
    ///
    /// # Errors
    ///
    /// An expression has no verdict on this name.
    pub fn choose(&self, name: &str) -> Result<Choice, MatchError> {
        if self.vm.as_deref() == Some(name) {
            return Ok(Choice::Named);
        }
        let passed = match &self.include {
            Some(include) if !include.matches(name)? => return Ok(Choice::NotIncluded),
            Some(_) => Choice::Included,
            None if self.vm.is_some() => return Ok(Choice::NotNamed),
            None => Choice::Unrestricted,
        };
        match &self.exclude {
            Some(exclude) if exclude.matches(name)? => Ok(Choice::Excluded),
            Some(_) | None => Ok(passed),
        }
    }
}

impl Choice {
    /// Whether the name is chosen.
    #[must_use]
    pub fn is_chosen(self) -> bool {
        match self {
            Self::Named | Self::Included | Self::Unrestricted => true,
            Self::NotNamed | Self::NotIncluded | Self::Excluded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(vm: &str, include: &str, exclude: &str) -> Selection {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let pattern = |text| given(text).map(|text| NamePattern::new(&text).unwrap());
        Selection {
            vm: given(vm),
            include: pattern(include),
            exclude: pattern(exclude),
            resource_group: None,
        }
    }

    #[test]
    fn every_combination_saves_what_the_contract_says() {
        // Over all names: those of the table saved, and no other.
        let names = ["web01", "old-web02", "db01", "keep.old", "WEB03"];
        let table: [(&str, &str, &str, &[&str]); 8] = [
            ("", "", "", &names),
            ("db01", "", "", &["db01"]),
            ("", "", "(.*)old(.*)", &["web01", "db01", "WEB03"]),
            ("", "(.*)web(.*)", "", &["web01", "old-web02"]),
            ("", "(.*)web(.*)", "^old(.*)", &["web01"]),
            ("keep.old", "", "(.*)old(.*)", &["keep.old"]),
            ("db01", "(.*)web(.*)", "", &["web01", "old-web02", "db01"]),
            (
                "keep.old",
                "(.*)web(.*)",
                "(.*)old(.*)",
                &["web01", "keep.old"],
            ),
        ];
        for (vm, include, exclude, want) in table {
            let selection = selection(vm, include, exclude);
            let saved = names
                .into_iter()
                .filter(|name| selection.choose(name).unwrap().is_chosen());
            assert_eq!(
                saved.collect::<Vec<_>>(),
                want,
                "vm={vm} include={include} exclude={exclude}"
            );
        }
    }

    #[test]
    fn each_choice_has_its_reason() {
        let choice =
            |vm, include, exclude, name| selection(vm, include, exclude).choose(name).unwrap();
        assert_eq!(choice("", "", "", "a"), Choice::Unrestricted);
        assert_eq!(choice("a", "b", "a", "a"), Choice::Named);
        assert_eq!(choice("a", "", "", "A"), Choice::NotNamed);
        assert_eq!(choice("a", "b", "", "b"), Choice::Included);
        assert_eq!(choice("a", "b", "", "c"), Choice::NotIncluded);
        assert_eq!(choice("", "b", "b", "b"), Choice::Excluded);
    }

    #[test]
    fn without_a_verdict_there_is_no_choice() {
        let undecided = "(?:(x+x+)+(?=y))?";
        let name = "x".repeat(40);
        for selection in [selection("", undecided, ""), selection("", "", undecided)] {
            let error = selection.choose(&name).unwrap_err().to_string();
            assert!(
                error.contains(undecided) && error.contains(&name),
                "{error}"
            );
        }
        // What is named needs none.
        let named = selection(&name, "", undecided).choose(&name);
        assert_eq!(named, Ok(Choice::Named));
    }
}
