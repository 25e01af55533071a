//! `outrigger cp`: files between this machine and a container, through `tar` in it.
pub(crate) fn run(_: &crate::cli::Global, _: &super::arguments::Copy) -> anyhow::Result<u8> {
    anyhow::bail!("not yet")
}
