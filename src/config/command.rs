//! The plugin command: `azure-vm:` and then `key=value` items separated by blanks.
//!
//! Only the first `=` of an item separates, and nothing is escaped, so connection strings and regular expressions need no
//! care. A value with blanks stands in double quotes, `group="my site"`: quotes are marks only where one stands right
//! behind the `=` and the next one ends the item; any others are characters of the value.

use super::parameters::{Findings, Parameter, Values, collect};
use crate::secret::Secret;

/// The plugin's prefix; anything before the first colon of a whole Plugin line.
const PREFIX: &str = "azure-vm:";

/// The values of a plugin command.
pub(super) fn parse(command: &str, findings: &mut Findings) -> Values {
    let command = command.trim_start();
    let items = command.strip_prefix(PREFIX).unwrap_or(command);
    let mut pairs = Vec::new();
    let mut rest = items.trim_start();
    while !rest.is_empty() {
        let (name, value, behind) = next_item(rest);
        match value {
            Some(value) => pairs.push((name.to_owned(), Secret::new(value.to_owned()))),
            // The one parameter that may stand as a bare word.
            None if Parameter::of_name(name) == Some(Parameter::AbortOnError) => {
                pairs.push((name.to_owned(), Secret::new("1".to_owned())));
            }
            None => findings.problem(without_value(name)),
        }
        rest = behind.trim_start();
    }
    collect(pairs, "", findings)
}

/// Name and value of the first item, and what follows it.
fn next_item(text: &str) -> (&str, Option<&str>, &str) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let Some((name, value)) = text[..end].split_once('=') else {
        return (&text[..end], None, &text[end..]);
    };
    let quoted = text[name.len() + 1..]
        .strip_prefix('"')
        .and_then(|text| text.split_once('"'))
        .filter(|(_, behind)| behind.is_empty() || behind.starts_with(char::is_whitespace));
    match quoted {
        Some((value, behind)) => (name, Some(value), behind),
        None => (name, Some(value), &text[end..]),
    }
}

/// What to say about a word alone. It is not shown unless it resembles a parameter: it may be a piece of a secret.
fn without_value(item: &str) -> String {
    match Parameter::of_name(item).or_else(|| Parameter::likely(item)) {
        Some(key) => format!("parameter {key} has no value: write {key}=VALUE"),
        None => {
            "a word of the plugin command is not of the form key=value (a value with blanks needs double quotes)"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(command: &str) -> (Values, Vec<String>) {
        let mut findings = Findings::default();
        let values = parse(command, &mut findings);
        match findings.into_warnings() {
            Ok(warnings) => (values, warnings),
            Err(error) => (values, error.problems().to_vec()),
        }
    }

    #[test]
    fn values_are_taken_as_they_are() {
        let tricky = [
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=ZXhhbXBsZQ==;EndpointSuffix=core.windows.net",
            "p~-_.secret=(1)*^;#:",
            r"back\slash\",
            "^(web|db)[0-9]{2}$",
            "\"half",
            "\"two\"quotes",
            "in\"side\"",
            "'single'quotes",
        ];
        for value in tricky {
            let (values, said) = parsed(&format!("azure-vm: connection_key={value}  vm=b"));
            assert_eq!(values.get(Parameter::ConnectionKey), Some(value));
            assert_eq!(values.get(Parameter::Vm), Some("b"));
            assert!(said.is_empty(), "{said:?}");
        }
    }

    #[test]
    fn prefix_blanks_and_emptiness_do_not_matter() {
        for command in [
            "azure-vm: vm=a",
            "azure-vm:vm=a",
            " \t vm=a\n",
            "azure-vm:\tvm=a ",
        ] {
            assert_eq!(
                parsed(command).0.get(Parameter::Vm),
                Some("a"),
                "{command:?}"
            );
        }
        for command in ["", "azure-vm:", " azure-vm:  "] {
            assert!(parsed(command).1.is_empty());
        }
    }

    #[test]
    fn double_quotes_hold_blanks_together() {
        let table = [
            ("group=\"my site\" vm=b", "my site"),
            ("group=\" my  site \" vm=b", " my  site "),
            ("group=\"site\" vm=b", "site"),
            ("group=\"a='b' c=d\" vm=b", "a='b' c=d"),
            // No closing quote that ends the item: nothing but characters.
            ("group=\"my vm=b", "\"my"),
            ("group=\"a\"b vm=b", "\"a\"b"),
            ("group=\"a exclude=\"c\" vm=b", "\"a"),
        ];
        for (command, group) in table {
            let mut findings = Findings::default();
            let values = parse(command, &mut findings);
            assert_eq!(values.get(Parameter::Group), Some(group), "{command}");
            assert_eq!(values.get(Parameter::Vm), Some("b"), "{command}");
        }
        assert_eq!(
            parsed("vm=\"\"").1,
            ["parameter vm has no value: give one or leave the parameter out"]
        );
        assert!(parsed("vm=\"a b\" c\"").1[0].contains("not of the form"));
        assert!(parsed("vm=\"a\0b\"").1[0].contains("control character"));
        assert!(parsed("vm=\u{fffd}").1[0].contains("not UTF-8"));
    }

    #[test]
    fn only_abort_on_error_may_stand_alone() {
        let (values, said) = parsed("abort_on_error");
        assert_eq!(
            (values.get(Parameter::AbortOnError), said.len()),
            (Some("1"), 0)
        );
        assert_eq!(
            parsed("vm").1,
            ["parameter vm has no value: write vm=VALUE"]
        );
        assert_eq!(
            parsed("vm=").1,
            ["parameter vm has no value: give one or leave the parameter out"]
        );
    }

    #[test]
    fn the_last_of_two_values_counts_and_is_mentioned() {
        let (values, said) = parsed("vm=a VM=b");
        assert_eq!(values.get(Parameter::Vm), Some("b"));
        assert_eq!(
            said,
            ["parameter vm is given more than once: the last value counts"]
        );
    }

    #[test]
    fn unknown_names_are_refused_with_the_likely_one() {
        let (_, said) = parsed("secret_id=hunter2 vmm=x banana=1");
        assert_eq!(
            said[0],
            "unknown parameter secret_id: did you mean application_secret?"
        );
        assert_eq!(said[1], "unknown parameter vmm: did you mean vm?");
        assert!(said[2].starts_with("unknown parameter banana: possible are tenant_id, "));
    }

    #[test]
    fn pieces_of_a_secret_are_not_repeated() {
        let (_, said) = parsed("application_secret=two words(and=more");
        assert_eq!(said.len(), 1);
        assert!(!said[0].contains("words"), "{said:?}");
        assert!(!parsed("application_secret=two words").1[0].contains("words"));
    }
}
