#include <linux/kernel.h>

int other(int x)
{
	return x + 3;
}
