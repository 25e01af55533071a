//! TLS as OpenSSL sees it: resumption, staples, kinds of keys, protocols nobody speaks.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::harness::{Upstream, World, eventually, ok};

/// Runs it in the world's directory; its output, both streams, whether it succeeded or not.
fn sh(world: &World, line: &str) -> String {
    let output =
        Command::new("sh").args(["-c", &format!("({line}) 2>&1")]).current_dir(world.path("")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An authority and a certificate of each kind for `a.test`, made by OpenSSL.
fn certificates(world: &World) {
    let made = sh(
        world,
        "set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
for kind in 'ec -pkeyopt ec_paramgen_curve:P-256' 'rsa:2048'; do
  name=${kind%% *}; name=${name%%:*}
  openssl req -newkey $kind -nodes -keyout $name.key -out $name.csr -subj /CN=a.test
  printf 'subjectAltName=DNS:a.test' > ext
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.crt
done
touch index
openssl ocsp -issuer ca.crt -cert ec.crt -reqout request
openssl ocsp -index index -rsigner ca.crt -rkey ca.key -CA ca.crt -reqin request -respout ec.ocsp -ndays 2
echo made",
    );
    assert!(made.ends_with("made\n"), "{made}");
}

/// What `openssl s_client` says of a connection on which it asks once.
fn s_client(world: &World, address: SocketAddr, flags: &str) -> String {
    let line = format!(
        "printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | timeout 20 openssl s_client -connect {address} \
         -servername a.test -CAfile ca.crt -ign_eof {flags}"
    );
    sh(world, &line)
}

fn start(world: &mut World, more: &str) -> Upstream {
    certificates(world);
    let upstream = Upstream::start(|_| ok("hello"));
    world.start(&spec(&upstream, more));
    upstream
}

fn spec(upstream: &Upstream, more: &str) -> String {
    format!(
        "workers: 2
listeners:
- name: https
  address: \"127.0.0.1:0\"
  tls:
    certificates:
    - {{certFile: ROOT/ec.crt, keyFile: ROOT/ec.key, ocspFile: ROOT/ec.ocsp}}
    - {{certFile: ROOT/rsa.crt, keyFile: ROOT/rsa.key}}
{more}
routes:
- {{name: all, backends: [{{name: app}}]}}
backends:
- {{name: app, endpoints: [\"{}\"]}}
",
        upstream.address
    )
}

#[test]
fn sessions_are_resumed_by_whatever_worker_and_across_reloads() {
    let mut world = World::new();
    let upstream = start(&mut world, "");
    let address = world.address();
    for (version, workers) in [("tls1_2", 3), ("tls1_3", 4)] {
        let first = s_client(&world, address, &format!("-{version} -sess_out {version}"));
        assert!(first.contains("\nNew, ") && first.contains("hello"), "{first}");
        for round in 0..6 {
            if round == 3 {
                world.reload(&spec(&upstream, "").replace("workers: 2", &format!("workers: {workers}")));
            }
            let again = s_client(&world, address, &format!("-{version} -sess_in {version}"));
            assert!(again.contains("\nReused, ") && again.contains("hello"), "{again}");
        }
    }
    // Whoever is asked for a certificate now was not asked when the ticket was made.
    world.reload(&spec(&upstream, "    clientCaFile: ROOT/ca.crt"));
    let refused = s_client(&world, address, "-tls1_2 -sess_in tls1_2");
    assert!(!refused.contains("Reused") && !refused.contains("hello"), "{refused}");
}

#[test]
fn the_client_chooses_the_kind_of_key_and_gets_the_staple() {
    let mut world = World::new();
    let upstream = start(&mut world, "");
    let address = world.address();
    for (flags, kind) in [
        ("-tls1_3", "ECDSA"),
        ("-tls1_3 -sigalgs RSA-PSS+SHA256", "RSA-PSS"),
        ("-tls1_2", "ECDSA"),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "RSA-PSS"),
        ("-tls1_2 -sigalgs RSA+SHA256", "RSA"),
    ] {
        let said = s_client(&world, address, flags);
        assert!(said.contains(&format!("Peer signature type: {kind}\n")), "{flags}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains("hello"), "{flags}: {said}");
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let stapled = s_client(&world, address, &format!("{version} -status"));
        assert!(stapled.contains("OCSP Response Status: successful"), "{stapled}");
        let none = s_client(&world, address, &format!("{version} -status -sigalgs RSA-PSS+SHA256"));
        assert!(none.contains("OCSP response: no response sent"), "{none}");
    }
    // A new staple is taken over.
    let produced = |said: &str| said.lines().find(|line| line.contains("Produced At")).map(str::to_owned);
    let before = produced(&s_client(&world, address, "-status"));
    sh(
        &world,
        "sleep 1.1; openssl ocsp -index index -rsigner ca.crt -rkey ca.key -CA ca.crt -reqin request -respout new -ndays 2; mv new ec.ocsp",
    );
    eventually("the new staple", || produced(&s_client(&world, address, "-status")) != before);
    // And one that is none changes nothing.
    std::fs::write(world.path("ec.ocsp"), "-----BEGIN").unwrap();
    eventually("the refusal", || world.log().contains("is no OCSP response"));
    assert!(s_client(&world, address, "").contains("hello"));
    drop(upstream);
}

#[test]
fn a_protocol_nobody_speaks_is_refused() {
    let mut world = World::new();
    let _upstream = start(&mut world, "");
    let refused = s_client(&world, world.address(), "-alpn imap");
    assert!(refused.contains("no application protocol"), "{refused}");
    let both = s_client(&world, world.address(), "-alpn imap,http/1.1");
    assert!(both.contains("ALPN protocol: http/1.1") && both.contains("hello"), "{both}");
    let none = s_client(&world, world.address(), "");
    assert!(none.contains("No ALPN negotiated") && none.contains("hello"), "{none}");
    for flags in ["-tls1_1 -cipher ALL:@SECLEVEL=0", "-tls1_2 -cipher AES128-SHA"] {
        assert!(!s_client(&world, world.address(), flags).contains("hello"), "{flags}");
    }
}

/// A scanner's verdict, where there is one: every line of level LOW and above is a finding.
#[test]
fn a_scanner_finds_nothing() {
    let found = Command::new("testssl").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("NOT RUN: there is no testssl");
        return;
    }
    let mut world = World::new();
    let _upstream = start(&mut world, "");
    let line = format!(
        "testssl --quiet --color 0 --warnings off --nodns none --severity LOW --vulnerable --protocols --std --fs \
         --server-preference --jsonfile found.json {} > /dev/null; cat found.json",
        world.address()
    );
    let found = sh(&world, &line);
    let findings: Vec<&str> = found.lines().filter(|line| line.contains("\"severity\"")).collect();
    let bad =
        |line: &&&str| ["\"LOW\"", "\"MEDIUM\"", "\"HIGH\"", "\"CRITICAL\""].iter().any(|level| line.contains(level));
    assert_eq!(findings.iter().filter(bad).count(), 0, "{found}");
}
