//! v2 on fixture trees, because the machines that run this may have only v1; both for real in `tests/it`.
