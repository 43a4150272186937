"""Everything this says is read from `settings.ini`, the project's one place for names, versions and requirements."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(HERE/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
words = lambda key: cfg.get(key, '').split()  # requirements are written without spaces inside

STATUS = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature', '7 - Inactive']
LICENSES = {'apache2': 'Apache-2.0'}  # nbdev's name for it: SPDX's
EXTRAS = ('notebooks', 'collect', 'hume', 'studio', 'docs', 'jukebox')

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(HERE/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license_expression=LICENSES[cfg['license']],
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    keywords=cfg['keywords'],
    classifiers=[
        f"Development Status :: {STATUS[int(cfg['status']) - 1]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        'Programming Language :: Python :: 3',
    ],
    # folders of weights count as packages, with or without an `__init__.py`
    packages=find_namespace_packages(include=[cfg['lib_path'], f"{cfg['lib_path']}.*"], exclude=['*.__pycache__']),
    package_data={cfg['lib_path']: words('package_data')},
    python_requires=f">={cfg['min_python']}",
    install_requires=words('requirements'),
    extras_require={
        **{extra: words(f'{extra}_requirements') for extra in EXTRAS},
        'dev': [r for extra in EXTRAS[:-1] for r in words(f'{extra}_requirements')] + words('dev_requirements'),
    },
    entry_points={
        'console_scripts': words('console_scripts'),
        'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
