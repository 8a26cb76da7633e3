#!/usr/bin/env python3
"""Walks the recipe of docs/install.md in a clean Debian root, as somebody does who has a VPS with Prosody: each line of its
blocks is run as it stands there. Takes root, and the packages that infra/debian/trial.sh has built.

    infra/debian/walk.py    or `make package-trial`

The root has a network of its own, so that names and ports are those of the recipe. There is no systemd in it: a stand-in
for systemctl runs what the units say, without their sandbox. What the recipe takes for granted is made before: Prosody with
example.com and an account, nginx, and certificates.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).resolve()
PACKAGES = TARGET / "debian/packages"
CLEAN = TARGET / "debian/clean.tar"
VPS = TARGET / "debian/vps.tar"
BEFORE, NOW = "upwire_0.0.9-1_*.deb", "upwire_0.1.0-1_*.deb"
ACCOUNT, PASSWORD = "juliet@example.com", "a-password"
SECONDS = 120
HOSTS = "127.0.0.1 localhost example.com notify.example.com push.example.com\n"


def fail(text):
    sys.exit(f"walk: {text}")


def block(page, heading, language="sh", number=0):
    """The lines of a code block below a heading of a page."""
    text = (REPOSITORY / page).read_text()
    section = text.split(f"\n{heading}\n", 1)[1]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[number]


class Root:
    def __init__(self, path):
        self.path = path

    def file(self, name):
        return self.path / name.lstrip("/")

    def write(self, name, text, mode=0o644):
        file = self.file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def command(self, line):
        environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        return ["chroot", str(self.path), "/bin/sh", "-ec", f"cd /root; {line}"], environment

    def run(self, line, may_fail=False):
        """Runs a line, and shows it; what it said."""
        print(f"  $ {line}", flush=True)
        command, environment = self.command(line)
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
        said = done.stdout + done.stderr
        if done.returncode != 0 and not may_fail:
            fail(f"{line!r} ends with {done.returncode}:\n{said}")
        return said

    def start(self, line, log):
        print(f"  $ {line} &", flush=True)
        command, environment = self.command(line)
        with open(self.file(log), "w") as out:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait_for(self, log, pattern):
        """Waits until a log has the pattern; its match."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            text = self.file(log).read_text() if self.file(log).exists() else ""
            if found := re.search(pattern, text, re.MULTILINE):
                return found
            time.sleep(0.2)
        fail(f"{log} has no {pattern!r} within {SECONDS} s:\n{text}")


SUDO = """#!/bin/sh
[ "$1" = -u ] || exec "$@"
user=$2
shift 2
exec setpriv --reuid "$user" --regid "$(id -gn "$user")" --init-groups env HOME=/nonexistent "$@"
"""

# The edit that the walk has prepared for a file of this name.
SUDOEDIT = """#!/bin/sh
exec sh -e "/root/edits/$(basename "$1")" "$1"
"""

SYSTEMCTL = r"""#!/bin/sh
# Does what units say, without their sandbox.
set -e
[ "$1" != --system ] || shift
verb=$1
shift
[ "${1:-}" != --now ] || shift
file() { for folder in /etc /lib /usr/lib; do [ ! -e "$folder/systemd/system/$1.service" ] || { echo "$folder/systemd/system/$1.service"; return; }; done; }
of() { sed -n "s/^$1=//p" "$(file "$unit")"; }
# Nobody buries what has ended: it has no command line then.
runs() { [ -e "/run/$unit.walk" ] && tr -d '\0' <"/proc/$(cat "/run/$unit.walk")/cmdline" 2>/dev/null | grep -q .; }
stop() {
    runs || return 0
    kill "$(cat "/run/$unit.walk")"
    while runs; do sleep 0.1; done
}
begin() {
    user=$(of User)
    run="${user:+setpriv --reuid $user --regid $user --init-groups} "
    of LoadCredential | while IFS=: read -r name from; do
        install -D -m 400 -o "${user:-root}" "$from" "/run/credentials/$unit/$name"
    done
    of Environment | sed "s|%d|/run/credentials/$unit|" >"/run/$unit.environment"
    for settings in $(of EnvironmentFile); do cat "${settings#-}" >>"/run/$unit.environment"; done
    chmod 644 "/run/$unit.environment"
    [ -z "$user" ] || install -d -o "$user" -g "$user" "/run/$unit"
    cd "$(of WorkingDirectory | grep . || echo /)"
    setsid $run sh -c "set -a; . /run/$unit.environment; umask 077; exec $(of ExecStart | head -n 1)" >>"/var/log/$unit.walk" 2>&1 </dev/null &
    echo $! >"/run/$unit.walk"
}
for unit; do
    unit=${unit%.service}
    case $verb in
    daemon-reload) ;;
    enable | start) runs || begin ;;
    restart) stop && begin ;;
    try-restart) ! runs || { stop && begin; } ;;
    stop | disable) stop ;;
    *) echo "systemctl: no $verb here" >&2 && exit 64 ;;
    esac
done
"""

JOURNALCTL = """#!/bin/sh
cat "/var/log/$2.walk"
"""


def unpack(tar, root):
    subprocess.run(["tar", "--extract", "--file", tar, "--directory", root.path, "--exclude", "./dev/*"], check=True)
    for name, minor in [("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)]:
        if not root.file(f"/dev/{name}").exists():
            subprocess.run(["mknod", "-m", "666", root.file(f"/dev/{name}"), "c", "1", str(minor)], check=True)


def prepare(root):
    """What a VPS with Prosody and nginx has. The first time it needs the network."""
    print("==> A clean Debian, with Prosody and nginx", flush=True)
    if VPS.exists():
        return unpack(VPS, root)
    unpack(CLEAN, root)
    shutil.copy("/etc/resolv.conf", root.file("/etc/resolv.conf"))
    root.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    root.run("apt-get --quiet update && apt-get --quiet --yes install --no-install-recommends prosody nginx-light curl openssl man-db")
    new = VPS.with_suffix(".new")
    subprocess.run(["tar", "--create", "--file", new, "--directory", root.path, "--exclude", "./dev/*", "."], check=True)
    new.rename(VPS)


def name_it(root):
    """Names, certificates, the account."""
    root.write("/etc/hosts", HOSTS)
    for name, text in [("sudo", SUDO), ("sudoedit", SUDOEDIT), ("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)]:
        root.write(f"/usr/local/bin/{name}", text, 0o755)
    # A person would say yes.
    root.write("/etc/apt/apt.conf.d/90yes", 'APT::Get::Assume-Yes "true";\n')
    # Packages look for it to know whether systemd runs.
    root.file("/run/systemd/system").mkdir(parents=True, exist_ok=True)
    live = "/etc/letsencrypt/live/push.example.com"
    root.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=walk 2>&1"
        " && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out request -subj /CN=example.com 2>&1"
        " && printf 'subjectAltName=DNS:example.com,DNS:push.example.com\\nbasicConstraints=critical,CA:FALSE\\n' > extensions"
        " && openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out certificate 2>&1"
        f" && install -D ca.crt /usr/local/share/ca-certificates/walk.crt && update-ca-certificates"
        f" && install -D certificate {live}/fullchain.pem && install -D key {live}/privkey.pem"
        " && install -g prosody -m 640 certificate /etc/prosody/certs/example.com.crt"
        " && install -g prosody -m 640 key /etc/prosody/certs/example.com.key"
    )
    root.write("/etc/prosody/conf.avail/example.com.cfg.lua", 'VirtualHost "example.com"\n')
    root.run("ln -s ../conf.avail/example.com.cfg.lua /etc/prosody/conf.d/ && systemctl start prosody")
    user, host = ACCOUNT.split("@")
    root.run(f"prosodyctl register {user} {host} {PASSWORD}")


def edits(root):
    """What a person writes into the files that the recipe opens."""
    component = block("docs/install.md", "## 2. Tell the XMPP server", "lua")
    told = 'secret=$(cat /etc/upwire/component-secret)\ncat >> "$1" <<TEXT\n' + component + "TEXT\n"
    told += 'sed -i "s|the text in component-secret|$secret|" "$1"\n'
    root.write("/root/edits/prosody.cfg.lua", told)
    settings = "s|^UPWIRE_PUBLIC_URL=.*|UPWIRE_PUBLIC_URL=https://push.example.com|; s|^UPWIRE_COMPONENT=.*|UPWIRE_COMPONENT=notify.example.com|"
    root.write("/root/edits/upwire.env", f'sed -i "{settings}" "$1"\n')


def lines(text):
    for line in text.splitlines():
        line = re.sub(r"\s{2,}#.*", "", line).strip()
        if line and not line.startswith("#"):
            yield line


def package(root, pattern):
    folder = root.file("/root/target/release-files")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in PACKAGES.glob(pattern):
        shutil.copy(file, folder)


def push(root, endpoint, text):
    said = root.run(f"curl --include --data '{text}' {endpoint}")
    if " 201" not in said.splitlines()[0]:
        fail(f"the push is answered:\n{said}")
    root.wait_for("/root/distributor.log", rf"^push,.*{text}")


def walk(root):
    name_it(root)
    edits(root)
    package(root, BEFORE)
    print("==> docs/install.md, As a Debian package", flush=True)
    for line in lines(block("docs/install.md", "## As a Debian package")):
        root.run(line)
    print("==> docs/install.md, Put TLS in front of it", flush=True)
    root.write("/etc/nginx/sites-enabled/push", block("docs/install.md", "## 4. Put TLS in front of it", "nginx"))
    root.file("/etc/nginx/sites-enabled/default").unlink(missing_ok=True)
    root.run("nginx -t && nginx")
    print("==> docs/install.md, Try it without a phone", flush=True)
    distributor, pushing = lines(block("docs/install.md", "## Try it without a phone"))
    running = root.start(distributor.replace("…", PASSWORD), "/root/distributor.log")
    endpoint = root.wait_for("/root/distributor.log", r"^endpoint (\S+)")[1]
    said = root.run(pushing.replace("https://push.example.com/push/…", endpoint))
    if " 201" not in said.splitlines()[0]:
        fail(f"the push is answered:\n{said}")
    root.wait_for("/root/distributor.log", "^push,.*Hello")
    print("==> docs/operations.md: backup, doctor, explain, registrations", flush=True)
    for line in lines(block("docs/operations.md", "## Backup")):
        root.run(line)
    (examining,) = lines(block("docs/operations.md", "## Is the set-up right?"))
    print(root.run(examining), flush=True)
    explained = root.run(f"sudo -u upwire upwire explain --database /var/lib/upwire/upwire.db {endpoint}")
    if "The last push was delivered" not in explained:
        fail(f"explain says:\n{explained}")
    print("==> docs/install.md, Upgrade", flush=True)
    package(root, NOW)
    for line in lines(block("docs/install.md", "## Upgrade and go back")):
        root.run(line)
    push(root, endpoint, "After the upgrade")
    print("==> docs/operations.md, to put a copy back", flush=True)
    for line in lines(block("docs/operations.md", "## Backup", number=1)):
        root.run(line)
    push(root, endpoint, "After the restore")
    running.terminate()
    print("==> docs/install.md, Remove", flush=True)
    for line in lines(block("docs/install.md", "## Remove it")):
        root.run(line)
    if root.file("/usr/bin/upwire").exists() or root.file("/etc/upwire").exists():
        fail("something of the package is left")
    if not root.file("/var/lib/upwire/upwire.db").exists():
        fail("a purge that nobody answered took the database")
    print("==> Every line of the recipe was walked", flush=True)


def main():
    if sys.argv[1:2] == ["--inside"]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return walk(Root(Path(sys.argv[2])))
    if os.geteuid() != 0:
        fail("a clean root takes root: run it by sudo")
    for pattern in (BEFORE, NOW):
        if not list(PACKAGES.glob(pattern)):
            fail(f"{PACKAGES} has no {pattern}: infra/debian/trial.sh builds it")
    with tempfile.TemporaryDirectory(prefix="walk.", dir=TARGET / "debian") as folder:
        root = Root(Path(folder))
        prepare(root)
        # All that runs inside ends with it.
        apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={folder}/proc"]
        status = subprocess.run([*apart, sys.executable, __file__, "--inside", folder]).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
