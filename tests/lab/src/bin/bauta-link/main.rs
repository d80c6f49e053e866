//! bauta-link: an emulated link between two namespaces, for people.
fn main() {}
