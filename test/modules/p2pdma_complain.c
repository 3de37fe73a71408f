// SPDX-License-Identifier: GPL-2.0
/*
 * Makes mistakes on command, of the kinds that a kernel complains of and
 * survives, for the test that they fail a run.
 *
 * Written to /dev/p2pdma_complain as text, one a write:
 *
 *   warn TEXT   a WARN() that says TEXT
 *   refcount    a reference is put that was not taken
 *   bounds      an array is read behind its end (UBSAN, where the kernel has it)
 *   atomic      sleeps where it may not
 *   hang        waits, so that no signal ends it, until somebody writes `wake`
 *   wake        ends that
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/refcount.h>
#include <linux/string.h>
#include <linux/uaccess.h>

static DECLARE_COMPLETION(woken);

static noinline void put_too_often(void)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_dec(&count);
}

static noinline int behind_the_end(unsigned int index)
{
	static volatile int behind[8];
	static volatile int array[4];

	return array[index] + behind[0];
}

static noinline void sleep_in_atomic_context(void)
{
	preempt_disable();
	/* With its complaint the scheduler enables it again: schedule_debug(). */
	msleep(1);
}

static ssize_t complain_write(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	char text[128];
	char *word = text;

	if (length == 0 || length >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, length))
		return -EFAULT;
	text[length] = '\0';
	word = strim(text);
	if (str_has_prefix(word, "warn "))
		WARN(1, "p2pdma_complain: %s\n", word + 5);
	else if (!strcmp(word, "refcount"))
		put_too_often();
	else if (!strcmp(word, "bounds"))
		behind_the_end(length); /* 6 or 7 */
	else if (!strcmp(word, "atomic"))
		sleep_in_atomic_context();
	else if (!strcmp(word, "hang"))
		wait_for_completion(&woken);
	else if (!strcmp(word, "wake"))
		complete_all(&woken);
	else
		return -EINVAL;
	return length;
}

static const struct file_operations complain_operations = {
	.owner = THIS_MODULE,
	.write = complain_write,
};

static struct miscdevice complain_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "p2pdma_complain",
	.fops = &complain_operations,
	.mode = 0600,
};

module_misc_device(complain_device);

MODULE_DESCRIPTION("Mistakes on command, for tests");
MODULE_LICENSE("GPL");
