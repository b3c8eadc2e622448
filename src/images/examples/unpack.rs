//! Unpacks one layer and says what it was: `unpack LAYER DIRECTORY [overlay|user|apply|keep]`. For measurements (hack/bench-images).

#![forbid(unsafe_code)]

use rrt_images::layer::{Options, Target, Whiteouts, unpack};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (layer, directory, whiteouts) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [layer, directory] => (*layer, *directory, Whiteouts::Overlay),
        [layer, directory, "overlay"] => (*layer, *directory, Whiteouts::Overlay),
        [layer, directory, "user"] => (*layer, *directory, Whiteouts::OverlayUser),
        [layer, directory, "apply"] => (*layer, *directory, Whiteouts::Apply),
        [layer, directory, "keep"] => (*layer, *directory, Whiteouts::Keep),
        _ => {
            eprintln!("usage: unpack LAYER DIRECTORY [overlay|user|apply|keep]");
            return ExitCode::FAILURE;
        }
    };
    let unpacked = File::open(layer).and_then(|layer| Ok((layer, File::open(directory)?))).map(|(layer, directory)| {
        let options = Options { digest_input: true, ..Options::default() };
        unpack(layer, &Target { directory: directory.as_fd(), whiteouts }, &options)
    });
    match unpacked {
        Ok(Ok(unpacked)) => println!("{unpacked:?}"),
        Ok(Err(error)) => {
            eprintln!("{layer}: {error}");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("{layer}, {directory}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
