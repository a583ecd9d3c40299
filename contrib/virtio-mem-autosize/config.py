# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user wants: the command line and a file say it in the same words."""

import argparse
import configparser
import os
import re
import urllib.parse
from typing import NamedTuple, Optional

UNITS = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
KEYS = ('min', 'max', 'share', 'device', 'unit', 'caches')
# Hosts whose memory is the one that /proc/meminfo shows.
HERE = re.compile(r'localhost|127\.[0-9.]+|::1', re.IGNORECASE)


class ConfigError(Exception):
    """What the user asked for makes no sense."""


class GuestConfig(NamedTuple):
    """One guest.  Sizes are those of its device, in bytes."""
    name: str
    address: str                    # of a monitor, or the name of a domain
    uri: Optional[str] = None       # of libvirt; None: a monitor
    device: Optional[str] = None
    least: int = 0
    most: Optional[int] = None      # None: the device's
    unit: int = 128 << 20
    share: int = 1
    keeps_caches: bool = False      # while the host has plenty
    reporting: bool = True
    dry_run: bool = False


class Config(NamedTuple):
    """All of it."""
    guests: list
    host_free: Optional[int]        # bytes; None: a tenth
    dry_run: bool
    once: bool
    verbose: bool


def parse_size(text, key='size'):
    """Read a size as QEMU's options take it: 512M, 4G, bytes."""
    match = re.fullmatch(r'([0-9]+)([KMGT]?)', text.strip().upper())
    if not match:
        raise ConfigError(f"{key}={text}: a size is a number, of bytes or with "
                          "K, M, G or T")
    return int(match[1]) * UNITS[match[2]]


def parse_port(address):
    """Return (host, port) of HOST:PORT; None: it is the path of a socket."""
    match = re.fullmatch(r'\[?([^/\]]+)\]?:([0-9]+)', address)
    return (match[1], int(match[2])) if match else None


def check_address(name, address, uri):
    """Refuse what cannot be there, and guests of other hosts."""
    if not name or not address:
        raise ConfigError('a guest needs a name, and a monitor or a domain')
    if uri:
        host, port = urllib.parse.urlsplit(uri).hostname, 0
    else:
        host, port = parse_port(address) or (None, 0)
    if port > 65535:
        raise ConfigError(f'{address}: a port is 65535 or less')
    if host and not HERE.fullmatch(host):
        raise ConfigError(f'{uri or address} is on another host, whose memory '
                          'is not seen from here; run this program there')


def parse_limits(name, values):
    """Return minimum, maximum and unit, which do not contradict each other."""
    least, most, unit = (
        parse_size(values[key], f'{name}: {key}') if key in values else default
        for key, default in (('min', 0), ('max', None), ('unit', 128 << 20)))
    if most is not None and least > most:
        raise ConfigError(f'{name}: min={values["min"]} is more than '
                          f'max={values["max"]}')
    if unit & (unit - 1) or unit < 1 << 20:
        raise ConfigError(f'{name}: unit={values["unit"]}: a unit is a power '
                          'of two, at least 1M')
    return least, most, unit


def guest_config(name, address, uri, args, values):
    """Make sense of what is said of a guest: {key: text}."""
    check_address(name, address, uri)
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise ConfigError(f'{name}: {unknown[0]} is unknown; there are: '
                          f'{", ".join(KEYS)}')
    share = values.get('share', '1')
    if not re.fullmatch('[0-9]+', share) or not int(share):
        raise ConfigError(f'{name}: share={share}: a share is 1 or more')
    caches = values.get('caches', 'take')
    if caches not in ('take', 'keep'):
        raise ConfigError(f'{name}: caches={caches}: caches are take or keep')
    return GuestConfig(name, address, uri, values.get('device'),
                       *parse_limits(name, values), int(share),
                       caches == 'keep', not args.without_reporting,
                       args.dry_run)


def guest_of_argument(text, args):
    """Make sense of GUEST[,KEY=VALUE...]."""
    address, *options = text.split(',')
    values = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals:
            raise ConfigError(f'{address}: "{option}" is no KEY=VALUE')
        if key in values:
            raise ConfigError(f'{address}: {key} is there twice')
        values[key] = value
    return guest_config(address, address, args.connect, args, values)


def guest_of_section(parser, section, uri, args):
    """Make sense of [guest NAME]."""
    name = section.partition(' ')[2]
    values = dict(parser[section])
    monitor, domain = values.pop('monitor', None), values.pop('domain', None)
    if bool(monitor) == bool(domain):
        raise ConfigError(f'[{section}] needs either monitor=SOCKET or '
                          'domain=NAME')
    if domain and not uri:
        uri = 'qemu:///system'
    return guest_config(name, monitor or domain, uri if domain else None,
                        args, values)


def parse_arguments(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='virtio-mem-autosize', description='Resize virtio-mem devices of '
        'running guests as the guests need memory.')
    parser.add_argument('guests', nargs='*', metavar='GUEST[,KEY=VALUE...]',
                        help='a QMP socket: PATH or HOST:PORT; with --connect, '
                        'a domain. Keys: ' + ', '.join(KEYS))
    parser.add_argument('--config', metavar='FILE', help='read also that')
    parser.add_argument('--connect', metavar='URI', help='use libvirt')
    parser.add_argument('--host-free', metavar='SIZE', help='what is to stay '
                        'free on the host (default: a tenth of it)')
    parser.add_argument('--dry-run', action='store_true',
                        help='resize nothing, say what would be done')
    parser.add_argument('--once', action='store_true',
                        help='end after one decision for each guest')
    parser.add_argument('--without-reporting', action='store_true',
                        help='take guests without free page reporting, too')
    parser.add_argument('--verbose', action='store_true',
                        help='say also why nothing is done')
    return parser.parse_args(arguments)


def read_file(path):
    """Read a file of configuration."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding='utf-8') as file:
            parser.read_file(file)
    except (OSError, configparser.Error, UnicodeError) as error:
        raise ConfigError(f'{path}: {error}') from error
    for section in parser.sections():
        if section != 'host' and not section.startswith('guest '):
            raise ConfigError(f'{path}: [{section}] is neither [host] nor '
                              '[guest NAME]')
    return parser


def host_section(parser):
    """Return what [host] says: {key: text}."""
    values = dict(parser['host']) if parser.has_section('host') else {}
    unknown = sorted(set(values) - {'free', 'connect'})
    if unknown:
        raise ConfigError(f'[host]: {unknown[0]} is unknown; there are: free, '
                          'connect')
    return values


def check_twice(what, names):
    """Refuse guests of which there are two."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f'{what} is named twice: {", ".join(twice)}')


def same(guest):
    """Return what guests that are the same have in common."""
    if guest.uri or parse_port(guest.address):
        return f'{guest.uri or ""} {guest.address}'.strip()
    return os.path.realpath(guest.address)


def configure(arguments):
    """Make sense of the command line, and of the file that it names."""
    args = parse_arguments(arguments)
    parser = read_file(args.config) if args.config \
        else configparser.ConfigParser()
    host = host_section(parser)
    uri = args.connect or host.get('connect')
    guests = [guest_of_argument(text, args) for text in args.guests]
    guests += [guest_of_section(parser, section, uri, args)
               for section in parser.sections() if section != 'host']
    if not guests:
        raise ConfigError('no guest is named, on the command line or by '
                          '--config FILE')
    check_twice('a guest', [guest.name for guest in guests])
    check_twice('the monitor or domain of a guest', list(map(same, guests)))
    free = host.get('free') if args.host_free is None else args.host_free
    return Config(guests,
                  None if free is None else parse_size(free, 'host-free'),
                  args.dry_run, args.once, args.verbose)
