//! Several files, and directories of them.

use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// Writes files, and loads them, or the directory as a whole where none is named.
struct Written(TempDir);

impl Written {
    fn new(files: &[(&str, &str)]) -> Written {
        let directory = TempDir::new().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Written(directory)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, names: &[&str]) -> Result<Loaded<Fields>, String> {
        let sources = Sources {
            files: names.iter().map(|name| self.path(name)).collect(),
            ..Sources::default()
        };
        let directory = format!("{}/", self.0.path().display());
        load_with_origins(sources).map_err(|error| error.to_string().replace(&directory, ""))
    }

    fn error(&self, names: &[&str]) -> String {
        self.load(names).unwrap_err()
    }

    fn says(&self, loaded: &Loaded<Fields>, key: &str) -> String {
        let directory = format!("{}/", self.0.path().display());
        let error = loaded.origins.error(key, "no").to_string();
        error.replace(&directory, "")
    }
}

#[test]
fn a_later_file_overrides_an_earlier_one_key_by_key() {
    let files = Written::new(&[
        (
            "a",
            "data: a\nmetrics: {public: true, labels: {x: '1', y: '1'}}\nlisten: [{address: '1.2.3.4:1'}, {address: '1.2.3.4:2'}]\n",
        ),
        (
            "b",
            "metrics: {listen: b, labels: {y: '2'}}\nlisten: [{address: '1.2.3.4:3'}]\n",
        ),
        ("c", "metrics:\nlimits: {drain: 1s}\n"),
    ]);
    let fields = files.load(&["a", "b"]).unwrap().fields;
    assert_eq!(fields.data, "a");
    assert!(fields.metrics.public);
    assert_eq!(fields.metrics.listen.as_deref(), Some("b"));
    let labels: Vec<_> = fields.metrics.labels.iter().collect();
    let expected = [("x", "1"), ("y", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert!(labels.into_iter().eq(expected.iter().map(|(k, v)| (k, v))));
    // A list is replaced as a whole.
    assert_eq!(fields.listen.len(), 1);
    let other_way = files.load(&["b", "a"]).unwrap().fields;
    assert_eq!(other_way.listen.len(), 2);
    // A section that is left empty takes nothing away.
    assert!(
        files
            .error(&["a", "c"])
            .starts_with("c:2: limits.drain: unknown key")
    );
}

#[test]
fn an_error_names_the_file_and_line_that_decided() {
    let files = Written::new(&[
        (
            "a",
            "# a\ndata: a\nlisten:\n- address: 1.2.3.4:1\n- address: nowhere\n",
        ),
        ("b", "metrics:\n  basic_auth:\n    username: me\n"),
        ("c", "metrics:\n  basic_auth:\n    password: p\n"),
        ("d", "listen:\n- address: 1.2.3.4:2\n"),
        ("e", "metrics: {basic_auth: {password: 7}}\n"),
    ]);
    assert!(
        files
            .error(&["a", "b", "c"])
            .starts_with("a:5: listen[1].address: ")
    );
    assert!(
        files
            .error(&["b", "d"])
            .starts_with("b:2: metrics.basic_auth: the key password is missing")
    );
    assert!(
        files
            .error(&["b", "e", "d"])
            .starts_with("e:1: metrics.basic_auth.password: ")
    );
    let loaded = files.load(&["a", "b", "c", "d"]).unwrap();
    for (key, place) in [
        ("data", "a:2: "),
        ("listen[0].address", "d:2: "),
        // Its list is that of the last file, although an earlier one has the entry.
        ("listen[1].address", "d:1: "),
        ("metrics.basic_auth.username", "b:3: "),
        ("metrics.basic_auth.password", "c:3: "),
        ("metrics.public", "c:1: "),
        // Nobody said anything of it.
        ("limits.max_bytes", ""),
    ] {
        assert_eq!(files.says(&loaded, key), format!("{place}{key}: no"));
    }
    assert!(loaded.origins.said("metrics.basic_auth.username"));
    assert!(!loaded.origins.said("limits"));
}

#[test]
fn a_text_for_the_listener_of_an_earlier_file_replaces_its_address_alone() {
    let merged = |over: &str| {
        let mut under =
            serde_yaml::from_str("metrics: {listen: {address: a, tls: {key: k}}}").unwrap();
        merge::merge_file(&mut under, serde_yaml::from_str(over).unwrap());
        serde_yaml::to_string(&under)
            .unwrap()
            .replace(char::is_whitespace, "")
    };
    assert_eq!(
        merged("metrics: {listen: b}"),
        "metrics:listen:address:btls:key:k"
    );
    assert_eq!(merged("metrics: {listen: [b]}"), "metrics:listen:-b");
}

#[test]
fn of_a_directory_the_yaml_files_are_read_in_the_order_of_their_names() {
    let files = Written::new(&[
        ("20-b.yml", "data: b\n"),
        ("10-a.yaml", "data: a\nmetrics: {public: true}\n"),
        ("30.yaml.bak", "data: bak\n"),
        (".40.yaml", "data: hidden\n"),
        ("README", "no: yaml: at: all\n"),
    ]);
    let fields = files.load(&[""]).unwrap().fields;
    assert_eq!(fields.data, "b");
    assert!(fields.metrics.public);
    std::fs::write(files.path("99.yaml"), "- a\n").unwrap();
    assert_eq!(files.error(&[""]), "99.yaml:1: expected keys and values");
    std::fs::write(files.path("99.yaml"), "data: c\ndata: d\n").unwrap();
    assert!(files.error(&[""]).starts_with("99.yaml:"));
}

#[test]
fn the_links_of_a_mounted_volume_are_followed() {
    let files = Written::new(&[]);
    // As Kubernetes mounts a ConfigMap: the names are links into a directory that is replaced.
    std::fs::create_dir(files.path("..2026")).unwrap();
    std::fs::write(files.path("..2026/a.yaml"), "data: mounted\n").unwrap();
    symlink("..2026", files.path("..data")).unwrap();
    symlink("..data/a.yaml", files.path("a.yaml")).unwrap();
    assert_eq!(files.load(&[""]).unwrap().fields.data, "mounted");
    symlink("/nowhere", files.path("b.yaml")).unwrap();
    assert!(files.error(&[""]).starts_with("b.yaml: No such file"));
}

#[test]
fn what_cannot_be_read_is_named() {
    let files = Written::new(&[("a.yaml", "data: a\n"), ("bytes", "")]);
    std::fs::create_dir(files.path("empty")).unwrap();
    assert_eq!(
        files.error(&["empty"]),
        "empty: no file *.yaml or *.yml in this directory"
    );
    std::fs::create_dir(files.path("sub.yaml")).unwrap();
    assert!(
        files
            .error(&[""])
            .starts_with("sub.yaml: it is not a regular file")
    );
    std::fs::write(files.path("bytes"), [0xff, 0xfe]).unwrap();
    assert!(files.error(&["bytes"]).starts_with("bytes: "));
    assert!(
        files
            .error(&["a.yaml", "gone"])
            .starts_with("gone: No such file")
    );
    let endless = Sources {
        files: vec![Path::new("/dev/zero").to_owned()],
        ..Sources::default()
    };
    let error = load::<Fields>(endless).unwrap_err().to_string();
    assert_eq!(error, "/dev/zero: it is larger than 1 MiB");
}
