//! Entry point of the supervisor.

fn main() -> shared::Exit {
    supervisor::cli::main(shared::version!())
}
