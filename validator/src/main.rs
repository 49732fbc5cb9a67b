//! The `validator` binary.

fn main() -> shared::Exit {
    validator::cli::main(shared::version!())
}
