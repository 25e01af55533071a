fn main() {
    for f in ["tests/manifests/walkthrough.good.yaml", "tests/manifests/native-sidecar.good.yaml", "tests/manifests/workloads.good.yaml"] {
        let s = [pod_api::load::Source { name: f.into(), text: std::fs::read_to_string(f).unwrap() }];
        let t = std::time::Instant::now();
        pod_api::load::load(&s).unwrap();
        let first = t.elapsed();
        let t = std::time::Instant::now();
        for _ in 0..200 { pod_api::load::load(&s).unwrap(); }
        println!("{f}: first {first:?}, then {:?}", t.elapsed() / 200);
    }
    for n in &pod_api::load::load(&[pod_api::load::Source { name: "x".into(), text: std::fs::read_to_string("tests/manifests/workloads.good.yaml").unwrap() }]).unwrap().notes { println!("{n}"); }
}
