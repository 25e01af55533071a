pub(crate) fn run(_: &crate::cli::Global, _: &super::arguments::Events) -> anyhow::Result<u8> {
    anyhow::bail!("not yet")
}
