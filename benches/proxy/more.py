#!/usr/bin/env python3
"""What a load generator at full speed does not show: latency at a fixed rate, memory per idle connection, plain TCP,
the time from exec to the first answer. Proxies run on CPU 0, everything else on CPU 1; rounds are the outer loop.

usage: more.py [-r ROUNDS] [-d SECONDS] PROXY...   PROXY: outrigger (binary in $OUTRIGGER_PROXY), nginx, haproxy
needs h2load, wrk, nginx, haproxy, openssl
"""
import argparse, os, re, shutil, socket, ssl, statistics, struct, subprocess, tempfile, time

HTTP, TLS, TCP, APP = 18180, 18543, 18183, 19101
OURS = f"""apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners:
  - {{name: h1, address: "127.0.0.1:{HTTP}"}}
  - {{name: tcp, address: "127.0.0.1:{TCP}", tcp: app}}
  - name: tls
    address: "127.0.0.1:{TLS}"
    tls: {{certificates: [{{certFile: DIR/cert.pem, keyFile: DIR/key.pem}}]}}
  routes:
  - {{name: all, backends: [{{name: app}}]}}
  backends:
  - {{name: app, endpoints: ["127.0.0.1:{APP}"]}}
"""
NGINX = f"""worker_processes 1; daemon off; pid DIR/nginx.pid; error_log stderr error; events {{ worker_connections 8192; }}
stream {{ server {{ listen 127.0.0.1:{TCP}; proxy_pass 127.0.0.1:{APP}; }} }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; client_body_temp_path DIR/t1;
 proxy_temp_path DIR/t2; fastcgi_temp_path DIR/t3; uwsgi_temp_path DIR/t4; scgi_temp_path DIR/t5;
 upstream app {{ server 127.0.0.1:{APP}; keepalive 512; keepalive_requests 1000000000; }}
 proxy_http_version 1.1; proxy_set_header Connection ""; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem;
 server {{ listen 127.0.0.1:{HTTP}; location / {{ proxy_pass http://app; }} }}
 server {{ listen 127.0.0.1:{TLS} ssl; location / {{ proxy_pass http://app; }} }} }}
"""
HAPROXY = f"""global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
frontend h1
  bind 127.0.0.1:{HTTP}
  default_backend app
frontend tls
  bind 127.0.0.1:{TLS} ssl crt DIR/both.pem
  default_backend app
frontend tcp
  mode tcp
  option splice-auto
  bind 127.0.0.1:{TCP}
  default_backend raw
backend app
  server a 127.0.0.1:{APP}
backend raw
  mode tcp
  server a 127.0.0.1:{APP}
"""
UPSTREAM = f"""worker_processes 1; daemon off; pid DIR/app.pid; error_log stderr error; events {{ worker_connections 8192; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000000; keepalive_timeout 3600s; client_body_temp_path DIR/a1;
 proxy_temp_path DIR/a2; fastcgi_temp_path DIR/a3; uwsgi_temp_path DIR/a4; scgi_temp_path DIR/a5;
 server {{ listen 127.0.0.1:{APP}; location / {{ return 200 "{'x' * 1024}"; }}
 location /large {{ alias DIR/large; }} }} }}
"""


class Program:
    def __init__(self, command, cpu):
        """`began`: the moment before exec, of the program itself and nothing in front of it."""
        (told, tell) = os.pipe()

        def settle():
            os.sched_setaffinity(0, {cpu})
            os.write(tell, struct.pack("d", time.monotonic()))

        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=settle)
        self.began = struct.unpack("d", os.read(told, 8))[0]
        os.close(told)
        os.close(tell)

    def tree(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, open(f"/proc/{pid}/task/{task}/children").read().split())
        return found

    def memory(self):
        """KiB: proportional, and private."""
        pss = private = 0
        for pid in self.tree():
            text = open(f"/proc/{pid}/smaps_rollup").read()
            pss += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
            private += sum(map(int, re.findall(r"^Private_\w+:\s+(\d+)", text, re.M)))
        return pss, private

    def cpu(self):
        total = 0
        for pid in self.tree():
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(4)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ask(port):
    with socket.create_connection(("127.0.0.1", port), 1) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return stream.recv(65536).startswith(b"HTTP/1.1 200")


def first_answer(port, began):
    while time.monotonic() - began < 20:
        try:
            if ask(port):
                return (time.monotonic() - began) * 1e3
        except OSError:
            pass
        time.sleep(0.0002)
    raise SystemExit(f"nobody answers at {port}")


def at_rate(directory, seconds):
    """99th percentile in µs at 1,000 requests a second on ten connections."""
    log = directory + "/latency"
    if os.path.exists(log):
        os.remove(log)
    subprocess.run(["taskset", "-c", "1", "h2load", "--h1", "-t1", "-c10", "--rps=100", f"-D{seconds}", f"--log-file={log}", f"http://127.0.0.1:{HTTP}/"],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    times = sorted(int(line.split("\t")[2]) for line in open(log) if line.split("\t")[1] == "200")
    return times[len(times) // 2], times[len(times) * 99 // 100]


def idle(program, port, count, context=None):
    before = program.memory()[1]
    streams = []
    for _ in range(count):
        stream = socket.create_connection(("127.0.0.1", port), 5)
        if context:
            stream = context.wrap_socket(stream)
        stream.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        got = b""
        while len(got) < 1024:
            got += stream.recv(65536)
        streams.append(stream)
    time.sleep(0.5)
    grown = program.memory()[1] - before
    for stream in streams:
        stream.close()
    return grown * 1024 / count


def tcp(program, path, connections, seconds):
    """CPU µs a request, and bytes a CPU second, through the TCP listener."""
    before = program.cpu()
    out = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{TCP}{path}"], capture_output=True, text=True).stdout
    spent = program.cpu() - before
    found = re.search(r"(\d+) requests in \S+ ([\d.]+)([KMG])B read", out)
    size = float(found[2]) * {"K": 2**10, "M": 2**20, "G": 2**30}[found[3]]
    return spent * 1e6 / int(found[1]), size / 2**30 / max(spent, 0.01)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-r", type=int, default=3)
    parser.add_argument("-d", type=int, default=3)
    parser.add_argument("proxies", nargs="+")
    given = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="proxy-more-")
    os.chmod(directory, 0o755)
    subprocess.run(f"cd {directory} && openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl req -new -x509 -key key.pem -out cert.pem -days 30 -subj /CN=localhost"
                   " && cat cert.pem key.pem > both.pem && head -c 4194304 /dev/zero > large && chmod 644 *", shell=True, check=True, stderr=subprocess.DEVNULL)
    starts = {
        "outrigger": lambda: [os.environ["OUTRIGGER_PROXY"], "--config", directory + "/ours.yaml", "--admin", "127.0.0.1:17613", "--socket", directory + "/sock", "--drain-timeout", "1s"],
        "nginx": lambda: ["nginx", "-c", directory + "/nginx.conf", "-p", directory],
        "haproxy": lambda: ["haproxy", "-db", "-f", directory + "/haproxy.cfg"],
    }
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    nginx = f"load_module {module};\n" + NGINX if os.path.exists(module) else re.sub(r"^stream .*\n", "", NGINX, flags=re.M)
    for name, text in (("ours.yaml", OURS), ("nginx.conf", nginx), ("haproxy.cfg", HAPROXY), ("app.conf", UPSTREAM)):
        with open(f"{directory}/{name}", "w") as file:
            file.write(text.replace("DIR", directory))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    rows = {}
    app = Program(["nginx", "-c", directory + "/app.conf", "-p", directory], 1)
    try:
        first_answer(APP, app.began)
        for _ in range(given.r):
            for name in given.proxies:
                row = rows.setdefault(name, {})
                add = lambda key, value: row.setdefault(key, []).append(value)
                program = Program(starts[name](), 0)
                try:
                    add("first answer ms", first_answer(HTTP, program.began))
                    # Ours gives back what only its start needed two seconds later.
                    time.sleep(3)
                    add("idle PSS KiB", program.memory()[0])
                    p50, p99 = at_rate(directory, given.d)
                    add("p50 µs at 1000/s", p50)
                    add("p99 µs at 1000/s", p99)
                    add("bytes/idle conn", idle(program, HTTP, 400))
                    add("bytes/idle TLS conn", idle(program, TLS, 400, context))
                    if name == "nginx" and not os.path.exists(module):
                        continue
                    add("TCP CPU µs/req", tcp(program, "/", 32, given.d)[0])
                    add("TCP GiB/CPU-s, 4 MiB", tcp(program, "/large", 4, given.d)[1])
                finally:
                    program.end()
    finally:
        app.end()
        shutil.rmtree(directory, ignore_errors=True)
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    print("median of", given.r, "rounds".ljust(14), *(name.rjust(12) for name in rows))
    for key in keys:
        print(key.ljust(27), *(f"{statistics.median(row[key]):12.1f}" if key in row else "-".rjust(12) for row in rows.values()))


if __name__ == "__main__":
    main()
