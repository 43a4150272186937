"""What every test can rely on."""
import signal

# A shell that starts something with `&` makes it deaf to Ctrl-C, and its children too; the tests that send one need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = 'processes', 'kills', 'runs', 'cheaters', 'results', 'real_backbones', 'real_encoders'


def pytest_collection_modifyitems(items):
    "Files with few tests that take minutes come first, so that no worker is left with them at the end (--no-loadscope-reorder keeps the order)."
    place = {f'test_{name}.py': i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
