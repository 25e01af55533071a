use super::*;

fn entry() -> Entry {
    Entry {
        name: "outrigger".into(),
        server: "https://127.0.0.1:6550".into(),
        authority: "Q0E=".into(),
        certificate: "Q0VSVA==".into(),
        key: "S0VZ".into(),
    }
}

const EMPTY: &str = "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6550
  name: outrigger
contexts:
- context:
    cluster: outrigger
    user: outrigger
  name: outrigger
current-context: outrigger
kind: Config
preferences: {}
users:
- name: outrigger
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";

/// As kubectl leaves it, with a person's comments.
const OTHERS: &str = "\
# mine
apiVersion: v1
clusters:
- cluster:
    server: https://10.0.0.1:6443   # prod
  name: prod
contexts:
- context:
    cluster: prod
    user: me
  name: prod
# the one I use
current-context: prod
kind: Config
preferences: {}
users:
- name: me
  user:
    token: \"abc\"
";

#[test]
fn a_new_file_means_what_kubectl_would_write() {
    let text = with("", &entry(), true).unwrap();
    assert_eq!(read(&text).unwrap(), read(EMPTY).unwrap());
    for empty in ["{}", "\n", "apiVersion: v1\nkind: Config\nclusters: null\ncontexts: []\nusers:\n"] {
        let text = with(empty, &entry(), true).unwrap();
        assert_eq!(current(&text).as_deref(), Some("outrigger"), "{text}");
        assert_eq!(read(&text).unwrap()["users"], read(EMPTY).unwrap()["users"]);
    }
}

#[test]
fn everything_else_stays_byte_for_byte() {
    let text = with(OTHERS, &entry(), true).unwrap();
    let ours = "\
# mine
apiVersion: v1
clusters:
- cluster:
    server: https://10.0.0.1:6443   # prod
  name: prod
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6550
  name: outrigger
contexts:
- context:
    cluster: prod
    user: me
  name: prod
- context:
    cluster: outrigger
    user: outrigger
  name: outrigger
# the one I use
current-context: outrigger
kind: Config
preferences: {}
users:
- name: me
  user:
    token: \"abc\"
- name: outrigger
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";
    assert_eq!(text, ours);
    assert_eq!(with(&text, &entry(), true).unwrap(), text, "twice is once");
    let moved = Entry { server: "https://127.0.0.1:7000".into(), ..entry() };
    assert_eq!(with(&text, &moved, true).unwrap(), text.replace("6550", "7000"));
    let back = without(&text, "outrigger").unwrap();
    assert_eq!(back, OTHERS.replace("current-context: prod", "current-context: \"\""));
}

#[test]
fn the_current_context_is_left_alone_when_asked() {
    let text = with(OTHERS, &entry(), false).unwrap();
    assert_eq!(current(&text).as_deref(), Some("prod"));
    assert_eq!(without(&text, "outrigger").unwrap(), OTHERS);
    assert_eq!(without(OTHERS, "outrigger").unwrap(), OTHERS);
}

#[test]
fn indented_lists_and_the_last_of_a_list() {
    let text = "kind: Config\nusers:\n  -\n    name: outrigger\n    user: {token: x}\nclusters:\n  - name: a\n    cluster: {server: s}\n";
    let new = with(text, &entry(), true).unwrap();
    assert!(new.contains("users:\n  - name: outrigger\n    user:\n      client-certificate-data"), "{new}");
    assert!(new.contains("  - name: a\n    cluster: {server: s}\n  - cluster:\n"), "{new}");
    let gone = without(&new, "outrigger").unwrap();
    assert!(gone.contains("users: []") && gone.contains("contexts: []"), "{gone}");
}

#[test]
fn json_stays_json() {
    let text = r#"{"kind": "Config", "clusters": [{"name": "a", "cluster": {"server": "s"}}]}"#;
    let new = with(text, &entry(), true).unwrap();
    let value: Value = serde_json::from_str(&new).unwrap();
    assert_eq!(value["clusters"][1]["name"], "outrigger");
}

#[test]
fn what_is_not_understood_is_not_touched() {
    let half = &OTHERS[..OTHERS.len() - 12];
    assert!(matches!(with(&format!("{half}\n  x: [1"), &entry(), true), Err(EditError::Unreadable(_))));
    assert!(matches!(with("kind: Pod\n", &entry(), true), Err(EditError::Foreign(_))));
    assert!(matches!(with("- a\n", &entry(), true), Err(EditError::Foreign(_))));
    let flow = "kind: Config\nclusters: [{name: a, cluster: {server: s}}]\n";
    assert_eq!(with(flow, &entry(), true), Err(EditError::Style("clusters")));
    let anchored = "clusters:\n- &a\n  name: x\n  cluster: {server: s}\nusers: []\nmore:\n- *a\n";
    let _ = with(anchored, &entry(), true);
}
