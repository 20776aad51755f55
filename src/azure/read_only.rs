//! Taking out of a resource what only the service sets, so that it can be sent as a new one.

use serde_json::Value;

/// Removes the members at `paths` from `resource`.
///
/// A path is a JSON pointer without escapes in which `*` stands for every element of an array or every member of an
/// object; the generated `..._READ_ONLY` constants are lists of such paths. What does not exist is no mistake.
pub fn remove(resource: &mut Value, paths: &[&str]) {
    for path in paths {
        let steps: Vec<&str> = path.split('/').skip(1).collect();
        remove_at(resource, &steps);
    }
}

fn remove_at(value: &mut Value, steps: &[&str]) {
    match (value, steps) {
        (_, []) => {}
        (Value::Array(items), ["*", rest @ ..]) => {
            items.iter_mut().for_each(|item| remove_at(item, rest));
        }
        (Value::Object(members), ["*", rest @ ..]) => {
            members
                .values_mut()
                .for_each(|member| remove_at(member, rest));
        }
        (Value::Object(members), [last]) => {
            members.shift_remove(*last);
        }
        (Value::Object(members), [name, rest @ ..]) => {
            if let Some(member) = members.get_mut(*name) {
                remove_at(member, rest);
            }
        }
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
            _,
        ) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn removes_members_of_objects_arrays_and_maps() {
        let mut resource = json!({
            "id": "x", "name": "keep",
            "list": [{"etag": 1, "keep": 2}, {"keep": 3}, 4],
            "map": {"a": {"etag": 1}, "b": {"keep": 2}},
            "deep": {"state": 1, "keep": {"state": 2}},
        });
        remove(
            &mut resource,
            &[
                "/id",
                "/list/*/etag",
                "/map/*/etag",
                "/deep/state",
                "/none/at/all",
                "/name/x",
            ],
        );
        assert_eq!(
            resource,
            json!({
                "name": "keep",
                "list": [{"keep": 2}, {"keep": 3}, 4],
                "map": {"a": {}, "b": {"keep": 2}},
                "deep": {"keep": {"state": 2}},
            })
        );
        assert_eq!(
            resource.as_object().unwrap().keys().next().unwrap(),
            "name",
            "order is kept"
        );
    }
}
