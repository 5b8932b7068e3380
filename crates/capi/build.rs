//! The library's name in programs that are linked with it: one a version of the interface.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libflowyard.so.1");
}
