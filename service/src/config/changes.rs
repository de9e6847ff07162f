//! What differs between two configurations.

use serde::Serialize;
use serde_yaml::Value;

use super::units::revealed;

/// The keys whose values differ, as a message names them: `metrics.path`, `listen[1].address`. Of a list
/// with more or fewer entries it is the list's own key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedKeys(Vec<String>);

impl ChangedKeys {
    /// Compares two configurations. Secrets are compared, too, and never kept.
    pub fn between<F: Serialize>(old: &F, new: &F) -> ChangedKeys {
        let tree = |fields| serde_yaml::to_value(fields).unwrap_or_default();
        let mut changed = Vec::new();
        revealed(|| compare(&tree(old), &tree(new), "", &mut changed));
        ChangedKeys(changed)
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, but for the keys at or below these, of which those of another comparison count.
    #[must_use]
    pub fn replaced(&self, keys: &[&str], by: &ChangedKeys) -> ChangedKeys {
        let mut changed = self.without(keys);
        changed.extend_from_slice(&by.0);
        ChangedKeys(changed)
    }

    /// All keys, without those at or below one of these, in which `[]` stands for any entry of a list:
    /// `limits`, `listen[].tls`.
    #[must_use]
    pub fn without(&self, keys: &[&str]) -> Vec<String> {
        let is_below = |changed: &String| {
            let changed = without_indices(changed);
            keys.iter().any(|key| is_at_or_below(&changed, key))
        };
        let kept = self.0.iter().filter(|changed| !is_below(changed));
        kept.cloned().collect()
    }
}

/// Adds the keys at or below `key` whose values differ.
fn compare(old: &Value, new: &Value, key: &str, changed: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Mapping(old), Value::Mapping(new)) => {
            let added = new.keys().filter(|&name| !old.contains_key(name));
            for name in old.keys().chain(added) {
                let below = match (key, name.as_str().unwrap_or("?")) {
                    ("", name) => name.to_owned(),
                    (key, name) => format!("{key}.{name}"),
                };
                let value =
                    |tree: &serde_yaml::Mapping| tree.get(name).cloned().unwrap_or_default();
                compare(&value(old), &value(new), &below, changed);
            }
        }
        (Value::Sequence(old), Value::Sequence(new)) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                compare(old, new, &format!("{key}[{at}]"), changed);
            }
        }
        _ => changed.push(key.to_owned()),
    }
}

/// Whether a key is another one, or below it.
pub(super) fn is_at_or_below(key: &str, above: &str) -> bool {
    let rest = key.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn without_indices(key: &str) -> String {
    let mut plain = String::with_capacity(key.len());
    let mut is_index = false;
    for letter in key.chars() {
        is_index &= letter != ']';
        if !is_index {
            plain.push(letter);
        }
        is_index |= letter == '[';
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn changed(old: &str, new: &str) -> ChangedKeys {
        let [old, new] = [old, new].map(|yaml| serde_yaml::from_str::<Value>(yaml).unwrap());
        ChangedKeys::between(&old, &new)
    }

    #[test]
    fn a_change_is_named_by_its_key() {
        for (old, new, keys) in [
            ("{a: 1}", "{a: 1}", &[][..]),
            ("{a: 1, b: {c: 2}}", "{a: 3, b: {c: 4}}", &["a", "b.c"]),
            ("{a: [{b: 1}, 2]}", "{a: [{b: 2}, 2]}", &["a[0].b"]),
            ("{a: [1]}", "{a: [1, 2]}", &["a"]),
            ("{a: text}", "{a: {b: 1}}", &["a"]),
            ("{a: {}}", "{a: {b: 1}}", &["a.b"]),
        ] {
            assert_eq!(changed(old, new).without(&[]), keys, "{old} {new}");
        }
    }

    #[test]
    fn keys_at_and_below_others_are_left_out() {
        let all = changed(
            "{log: {level: 1}, logs: 1, listen: [{tls: {key: 1}, at: 1}], b: [1]}",
            "{log: {level: 2}, logs: 2, listen: [{tls: {key: 2}, at: 2}], b: []}",
        );
        assert_eq!(
            all.without(&["log", "b"]),
            ["logs", "listen[0].tls.key", "listen[0].at"]
        );
        assert_eq!(
            all.without(&["listen[].tls", "b"]),
            ["log.level", "logs", "listen[0].at"]
        );
    }

    #[test]
    fn keys_of_one_comparison_replace_those_of_another() {
        let since_start = changed("{a: 1, listen: [1], b: 1}", "{a: 2, listen: [2], b: 1}");
        let since_reload = changed("{listen: [1, 2]}", "{listen: [1]}");
        let all = since_start.replaced(&["listen"], &since_reload);
        assert_eq!(all.without(&[]), ["a", "listen"]);
        assert!(!all.is_empty() && ChangedKeys::default().is_empty());
    }

    #[test]
    fn secrets_are_compared_and_masked_again() {
        let [old, new] = ["hunter2", "hunter3"].map(Secret::new);
        let keys = |old, new| ChangedKeys::between(&vec![old], &vec![new]).without(&[]);
        assert_eq!(keys(old.clone(), new), ["[0]"]);
        assert_eq!(keys(old.clone(), old.clone()), Vec::<String>::new());
        assert!(!serde_yaml::to_string(&old).unwrap().contains("hunter"));
    }
}
