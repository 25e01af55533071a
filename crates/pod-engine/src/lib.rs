//! One task per pod: observe, plan, execute, publish.
