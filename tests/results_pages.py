"""A server on the loopback whose pages look like YouTube's results pages; for tests and the benchmark of tabs."""
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


def results_page(words: str, filler: int = 20_000) -> str:
    """A results page with three videos; the first one's id is what was searched for."""
    texts = [{'simpleText': '1,234,567 views'}, {'simpleText': 'No views'}, {'runs': [{'text': '312'}, {'text': ' watching'}]}]
    videos = [{'videoRenderer': {'videoId': words if i == 0 else f'video{i}', 'title': {'runs': [{'text': f'{words} "}} {i}'}]}, 'ownerText': {'runs': [{'text': 'Somebody - Topic'}]}, 'viewCountText': t}} for i, t in enumerate(texts)]
    data = {'contents': {'twoColumnSearchResultsRenderer': {'primaryContents': {'sectionListRenderer': {'contents': [{'itemSectionRenderer': {'contents': videos}}]}}}}, 'padding': 'x'*filler}
    return f'<!DOCTYPE html><html><head><title>{words} - YouTube</title><link rel="icon" href="data:,"></head><body><script>var ytInitialData = {json.dumps(data)};</script></body></html>'


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args): pass  # a tab that was closed


@contextmanager
def serve(latency: float = 0.0, never: tuple = ()):
    """Yields a server: `.address` takes the words, `.seen` counts them, `.most` is the most requests at once; words in `never` wait until it closes."""
    lock, seen, closing = threading.Lock(), [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            words = parse_qs(urlsplit(self.path).query).get('search_query', [''])[0]
            if not words: return self.send_error(404)
            with lock:
                seen.append(words)
                server.now += 1
                server.most = max(server.most, server.now)
            try:
                closing.wait() if words in never else time.sleep(latency)
                body = results_page(words).encode()
                self.send_response(200)
                self.send_header('Content-Type', 'text/html; charset=utf-8')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError: pass
            finally:
                with lock: server.now -= 1

        def log_message(self, *args): pass

    server = Server(('127.0.0.1', 0), Handler)
    server.now, server.most, server.seen = 0, 0, seen
    server.address = f'http://127.0.0.1:{server.server_port}/results?search_query='
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield server
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
