use super::*;

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.into(), password: password.into() }
}

#[test]
fn docker_hub_is_found_under_all_its_names() {
    for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"] {
        let json = format!(r#"{{"auths": {{"{key}": {{"auth": "dXNlcjpwYTpzcw=="}}}}}}"#);
        let credentials = Credentials::parse(json.as_bytes()).unwrap();
        assert_eq!(credentials.matching("docker.io", "library/alpine"), [&basic("user", "pa:ss")], "{key}");
        assert!(credentials.matching("quay.io", "library/alpine").is_empty());
    }
}

#[test]
fn the_longest_path_comes_first_and_ports_count() {
    let json = br#"{"auths": {
        "quay.io": {"username": "all", "password": "1"},
        "quay.io/team": {"username": "team", "password": "2"},
        "localhost:5000": {"username": "local", "password": "3"},
        "*.example.com": {"username": "star", "password": "4"}
    }}"#;
    let credentials = Credentials::parse(json).unwrap();
    assert_eq!(credentials.matching("quay.io", "team/app"), [&basic("team", "2"), &basic("all", "1")]);
    assert_eq!(credentials.matching("quay.io", "teamster/app"), [&basic("all", "1")]);
    assert_eq!(credentials.matching("localhost:5000", "x"), [&basic("local", "3")]);
    assert!(credentials.matching("localhost:5001", "x").is_empty());
    assert_eq!(credentials.matching("eu.example.com", "x"), [&basic("star", "4")]);
    assert!(credentials.matching("a.b.example.com", "x").is_empty());
}

#[test]
fn the_old_form_and_tokens_are_read() {
    let old = Credentials::parse(br#"{"quay.io": {"auth": "YTpi", "email": "x"}}"#).unwrap();
    assert_eq!(old.matching("quay.io", "x"), [&basic("a", "b")]);
    let tokens = br#"{"auths": {"a.io": {"registrytoken": "t"}, "b.io": {"identitytoken": "i", "auth": "YTo="}}}"#;
    let tokens = Credentials::parse(tokens).unwrap();
    assert_eq!(tokens.matching("a.io", "x"), [&Credential::Bearer("t".into())]);
    assert_eq!(tokens.matching("b.io", "x"), [&Credential::Identity]);
}

#[test]
fn helpers_are_known_by_name() {
    let json = br#"{"auths": {"quay.io": {}}, "credHelpers": {"gcr.io": "gcloud"}, "credsStore": "desktop"}"#;
    let credentials = Credentials::parse(json).unwrap();
    assert_eq!(credentials.helper("gcr.io"), Some("gcloud"));
    assert_eq!(credentials.helper("quay.io"), Some("desktop"));
    assert!(credentials.is_empty());
}

#[test]
fn nonsense_is_refused_and_secrets_are_not_shown() {
    assert!(Credentials::parse(b"[]").is_err());
    let error = Credentials::parse(br#"{"auths": {"quay.io": {"auth": "!!"}}}"#).unwrap_err();
    assert_eq!(error.to_string(), "credentials for `quay.io` have an `auth` that is not base64 of user:password");
    let shown = format!("{:?}", Credentials::basic("quay.io", "user", "hunter2"));
    assert!(shown.contains("user") && !shown.contains("hunter2"), "{shown}");
}
