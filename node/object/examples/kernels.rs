//! Runs a kernel of the hot paths a number of times: for instruction counts (`.ci/callgrind.sh`) and profiles.
//!
//! ```text
//! cargo run -p meridian-object --example kernels              names them
//! cargo run -p meridian-object --example kernels -- NAME N    runs one N times
//! ```

#[path = "../kernels/mod.rs"]
mod kernels;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        kernels::KERNELS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let times: u64 = arguments.next().and_then(|times| times.parse().ok()).expect("how many times");
    let (_, prepare) = kernels::KERNELS.iter().find(|(known, _)| *known == name).expect("a kernel's name");
    let mut run = prepare();
    (0..times).for_each(|_| run());
}
