//! What the first Ctrl-C promises.

use k8s_openapi::api::core::v1::Pod;

/// Upstream's default of `terminationGracePeriodSeconds`.
const DEFAULT: i64 = 30;

/// The longest grace period of the pods, in seconds.
pub(crate) fn longest<'a>(pods: impl Iterator<Item = &'a Pod>) -> i64 {
    let grace = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT);
    pods.map(grace).max().unwrap_or(DEFAULT)
}

/// The line that answers the first signal.
pub(crate) fn promise(pods: usize, seconds: i64) -> String {
    let what = if pods == 1 { "the pod".to_owned() } else { format!("{pods} pods") };
    format!("stopping {what}, for up to {seconds} s (Ctrl-C again kills at once)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(grace: Option<i64>) -> Pod {
        let spec = serde_json::json!({"containers": [], "terminationGracePeriodSeconds": grace});
        serde_json::from_value(serde_json::json!({"spec": spec})).expect("a pod")
    }

    #[test]
    fn the_longest_grace_period_counts() {
        assert_eq!(longest([pod(Some(5)), pod(None)].iter()), 30);
        assert_eq!(longest([pod(Some(5)), pod(Some(2))].iter()), 5);
        assert_eq!(promise(1, 5), "stopping the pod, for up to 5 s (Ctrl-C again kills at once)");
        assert_eq!(promise(3, 30), "stopping 3 pods, for up to 30 s (Ctrl-C again kills at once)");
    }
}
