#!/bin/bash
# Makes src/syscalls.tsv: the name of every system call, and its number on each architecture ("-" where it has none).
#
#   src/seccomp/tables.sh > src/seccomp/src/syscalls.tsv
#
# The numbers are the kernel's UAPI headers', as the crate linux-raw-sys (which rustix depends on) has them: `cargo update -p
# linux-raw-sys` before it brings those of a newer kernel. What x32 adds to every number, and where ARM's private calls begin, is
# in table.rs.
set -euo pipefail
cd "$(dirname "$0")"
manifest=$(cargo metadata --format-version 1 | grep -o '"manifest_path":"[^"]*/linux-raw-sys-[^"]*"' | cut -d'"' -f4)
source=$(dirname "$manifest")/src
# The columns: our names, and the folders of linux-raw-sys. powerpc64 is ppc64 and ppc64le.
names=(x86_64 x86 x32 aarch64 arm riscv64 s390x ppc64 loongarch64)
folders=(x86_64 x86 x32 aarch64 arm riscv64 s390x powerpc64 loongarch64)
export LC_ALL=C
# Calls newer than that crate (Linux 6.17): from 424 on a number is the same everywhere.
newer() {
    printf 'x86_64\tuprobe\t336\nx32\tuprobe\t%s\n' $((336 + 0x40000000))
    local name
    for name in "${names[@]}"; do
        local bit=0
        [ "$name" = x32 ] && bit=$((0x40000000))
        printf '%s\tlistns\t%s\n%s\trseq_slice_yield\t%s\n' "$name" $((470 + bit)) "$name" $((471 + bit))
    done
}
for i in "${!names[@]}"; do
    # Not calls: where the numbers end, where those of an architecture begin.
    sed -nE 's/^pub const __(ARM_)?NR_([a-z0-9_]+): u32 = ([0-9]+);$/\2\t\3/p' "$source/${folders[i]}"/general.rs |
        grep -vE '^(syscalls|arch_specific_syscall|sync_file_range2_nr)' | sed "s/^/${names[i]}\t/"
done | { cat; newer; } | awk -F'\t' -v columns="${names[*]}" '
    BEGIN { n = split(columns, column, " ") }
    {
        number = $3
        if ($1 == "x32") number -= 1073741824
        # 0xf0000 + n, in 16 bits.
        if ($1 == "arm" && number >= 983040) number = number - 983040 + 61440
        value[$2, $1] = number; seen[$2] = 1
    }
    END {
        for (name in seen) {
            line = name
            for (i = 1; i <= n; i++) line = line "\t" ((name, column[i]) in value ? value[name, column[i]] : "-")
            print line
        }
    }' | sort > "${TMPDIR:-/tmp}/syscalls.$$"
echo -e "#name\t$(echo "${names[*]}" | tr ' ' '\t')"
cat "${TMPDIR:-/tmp}/syscalls.$$"
rm "${TMPDIR:-/tmp}/syscalls.$$"
