#include <linux/kernel.h>

static int one;
static long two;
static const int primes[] = {
	2, 3, 5, 7,
};
static int limit = 100;
static int often __read_mostly = 5;
static int sizes[3] __read_mostly;
int visible;

static inline int half(int x)
{
	return x / 2;
}

int __weak arch_twice(int x)
{
	return x * 2;
}

int count(int x)
{
	static int calls;
	static int total;

	pr_warn_once("first");
	pr_warn("second");
	return half(x) + ++calls + ++total;
}
EXPORT_SYMBOL(count);

int plain(int x)
{
	return x + 1;
}

static int __init start(void)
{
	one = two = limit = often = sizes[0] = primes[1];
	return 0;
}

static int hidden(int x)
{
	return x + one;
}

BTF_SET_START(types)
BTF_ID(func, count)
BTF_SET_END(types)
