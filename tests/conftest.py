"""What every test can rely on."""
import signal

# A shell that starts something with `&` makes it deaf to Ctrl-C, and its children too; the tests that send one need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
