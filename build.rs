//! Compiles the one line of C that MPI's header needs: `MPI_IN_PLACE` is a macro,
//! and only the header of the very MPI we link against knows what it stands for.

fn main() {
    println!("cargo::rerun-if-env-changed=MPICC");
    println!("cargo::rerun-if-changed=src/comm/in_place.c");
    let compiler = std::env::var("MPICC").unwrap_or_else(|_| "mpicc".to_owned());
    cc::Build::new().compiler(compiler).file("src/comm/in_place.c").compile("taiga_flow_in_place");
}
