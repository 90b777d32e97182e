"""Writes counts_reference.txt: significance and upper limits of ON and OFF counts by gammapy, and
tails of distributions by scipy. The tests of src/statistics compare with these values.

    pip install gammapy==2.1 "regions<0.11" scipy
    python counts_reference.py > counts_reference.txt
"""

import gammapy
import numpy as np
import scipy
from gammapy.stats import WStatCountsStatistic
from scipy import stats

# One-sided 95 % of a normal distribution.
Z = stats.norm.ppf(0.95)

COUNTS = [
    (0, 0), (0, 1), (0, 7), (0, 250), (1, 0), (3, 0), (50, 0), (1, 1), (2, 10), (5, 25),
    (8, 25), (12, 20), (50, 250), (61, 248), (73, 251), (40, 260), (120, 500), (300, 1250),
    (1, 1000), (10, 3), (1000, 4800), (25000, 124000), (500000, 2500000), (4, 40000),
]
ALPHAS = [1.0, 1.0 / 5.0, 1.0 / 7.0, 0.31, 2.5]

print(f"# gammapy {gammapy.__version__}, scipy {scipy.__version__}, numpy {np.__version__}")
print("# li_ma ON OFF alpha significance; limit ON OFF alpha upper limit at 95 %")
for on, off in COUNTS:
    for alpha in ALPHAS:
        counts = WStatCountsStatistic(n_on=on, n_off=off, alpha=alpha)
        print("li_ma", on, off, repr(alpha), repr(float(counts.sqrt_ts)))
        if on <= 1250:
            limit = float(np.ravel(counts.compute_upper_limit(n_sigma=Z))[0])
            print("limit", on, off, repr(alpha), repr(limit))

print("# chi2 DEGREES x survival; kolmogorov x survival; normal x distribution")
for degrees in (1, 2, 4, 5, 6, 7, 31):
    for x in (0.0, 0.03, 0.7, 2.0, 4.9, 11.0, 30.0, 77.0):
        print("chi2", degrees, x, repr(float(stats.chi2.sf(x, degrees))))
for x in (0.05, 0.2, 0.35, 0.5, 0.8, 1.0, 1.2, 1.36, 1.63, 2.0, 3.1):
    print("kolmogorov", x, repr(float(stats.kstwobign.sf(x))))
for x in (-9.0, -4.5, -2.0, -1.0, -0.1, 0.0, 0.7, 1.5, 3.0, 6.0):
    print("normal", x, repr(float(stats.norm.cdf(x))))
print("# ks D n p: one sample against a distribution, exact")
for d, n in ((0.02, 1000), (0.03, 1000), (0.05, 1000), (0.06, 1000), (0.1, 100), (0.2, 30)):
    print("ks", d, n, repr(float(stats.kstwo.sf(d, n))))
