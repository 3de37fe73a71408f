// SPDX-License-Identifier: GPL-2.0
/*
 * The half of interval_tree.c that a kernel without IOMMUFD leaves out
 * (CONFIG_INTERVAL_TREE_SPAN_ITER). The other half comes with it, for this
 * module alone: the kernel exports its own already.
 */
#include <linux/export.h>
#undef EXPORT_SYMBOL_GPL
#define EXPORT_SYMBOL_GPL(symbol)
#include "../../../lib/interval_tree.c"
