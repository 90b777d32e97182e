//! Compiles the C function that returns `MPI_IN_PLACE`: it is a macro, defined only in the header
//! of the MPI library that the program is linked with.

fn main() {
    println!("cargo::rerun-if-env-changed=MPICC");
    println!("cargo::rerun-if-changed=src/comm/in_place.c");
    let compiler = std::env::var("MPICC").unwrap_or_else(|_| "mpicc".to_owned());
    cc::Build::new().compiler(compiler).file("src/comm/in_place.c").compile("taiga_flow_in_place");
}
