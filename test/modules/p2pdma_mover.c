// SPDX-License-Identifier: GPL-2.0
/*
 * An exporter for tests whose buffers really move, as a graphics driver's do:
 * from one set of pages to another, with importers told and a fence left.
 *
 * Commands are written to /dev/p2pdma_mover as text, one a write; what one
 * answers is read from the same open file:
 *
 *   create BYTES                  the number of a new dma-buf's descriptor
 *   move FD DELAY_MS [fail|hold]  how often it has moved, this one included
 *   release FD                    nothing; a held move goes on
 *   pin FD                        nothing; until this open file is closed
 *   info FD                       moves, pins, pending (0 or 1), and how many
 *                                 bytes of the old backing are not poison
 *
 * A move locks the reservation, invalidates the importers' mappings and the
 * CPU's, leaves a fence of KERNEL usage, and returns. After the delay the bytes
 * are copied, the old backing is poisoned and the fence signals. `fail`: the
 * fence signals an error, nothing copied. `hold`: it does not signal until
 * `release`, or until the buffer's last user has gone. EBUSY: it is pinned;
 * EALREADY: a move is held; EINTR, ETIME: one that is under way did not end.
 */
#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-resv.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#define POISON 0x6b
#define MAX_PAGES (1 << 16)
#define WAIT msecs_to_jiffies(10000)

struct mover_fence {
	struct dma_fence base; /* first: dma_fence_free() frees it */
	spinlock_t lock;
};

struct mover {
	struct dma_buf *dmabuf; /* not counted */
	struct page **backing[2];
	unsigned int pages;
	/* By the reservation lock: */
	unsigned int current_backing;
	unsigned int pins;
	u64 moves;
	/* By `lock`, which is taken inside the reservation lock: */
	struct mutex lock;
	struct mover_fence *fence; /* of the move under way */
	bool held;
	int error;		  /* how it is to end */
	struct delayed_work work; /* it counts the dma-buf */
};

static u64 fence_context;
static atomic64_t fence_number;

static const char *fence_name(struct dma_fence *fence)
{
	return "p2pdma_mover";
}

static const struct dma_fence_ops fence_ops = {
	.get_driver_name = fence_name,
	.get_timeline_name = fence_name,
};

static struct mover_fence *new_fence(void)
{
	struct mover_fence *fence = kzalloc(sizeof(*fence), GFP_KERNEL);

	if (!fence)
		return NULL;
	spin_lock_init(&fence->lock);
	dma_fence_init(&fence->base, &fence_ops, &fence->lock, fence_context,
		       atomic64_inc_return(&fence_number));
	return fence;
}

static void fill(struct page *page, u8 byte)
{
	void *address = kmap_local_page(page);

	memset(address, byte, PAGE_SIZE);
	kunmap_local(address);
}

/* Copies, poisons, signals. The new backing is nobody's until then. */
static void finish(struct mover *mover, int error)
{
	struct mover_fence *fence;
	unsigned int i;

	mutex_lock(&mover->lock);
	fence = mover->fence;
	if (fence) {
		struct page **new = mover->backing[mover->current_backing];
		struct page **old = mover->backing[!mover->current_backing];

		for (i = 0; i < mover->pages; i++) {
			if (!error)
				copy_highpage(new[i], old[i]);
			fill(old[i], POISON);
			cond_resched();
		}
		if (error)
			dma_fence_set_error(&fence->base, error);
		mover->fence = NULL;
		mover->held = false;
		dma_fence_signal(&fence->base);
		dma_fence_put(&fence->base);
	}
	mutex_unlock(&mover->lock);
}

static void work(struct work_struct *work)
{
	struct mover *mover = container_of(to_delayed_work(work), struct mover, work);

	finish(mover, mover->error);
	dma_buf_put(mover->dmabuf);
}

static void start(struct mover *mover, unsigned int delay)
{
	get_dma_buf(mover->dmabuf);
	queue_delayed_work(system_dfl_wq, &mover->work, msecs_to_jiffies(delay));
}

static int mover_pin(struct dma_buf_attachment *attach)
{
	struct mover *mover = attach->dmabuf->priv;

	mover->pins++;
	return 0;
}

static void mover_unpin(struct dma_buf_attachment *attach)
{
	struct mover *mover = attach->dmabuf->priv;

	mover->pins--;
}

static struct sg_table *mover_map(struct dma_buf_attachment *attach,
				  enum dma_data_direction direction)
{
	struct mover *mover = attach->dmabuf->priv;
	struct sg_table *table = kzalloc(sizeof(*table), GFP_KERNEL);
	int err;

	if (!table)
		return ERR_PTR(-ENOMEM);
	err = sg_alloc_table_from_pages(table, mover->backing[mover->current_backing], mover->pages,
					0, (size_t)mover->pages << PAGE_SHIFT, GFP_KERNEL);
	if (err)
		goto err_free;
	err = dma_map_sgtable(attach->dev, table, direction, 0);
	if (err)
		goto err_table;
	return table;

err_table:
	sg_free_table(table);
err_free:
	kfree(table);
	return ERR_PTR(err);
}

static void mover_unmap(struct dma_buf_attachment *attach, struct sg_table *table,
			enum dma_data_direction direction)
{
	dma_unmap_sgtable(attach->dev, table, direction, 0);
	sg_free_table(table);
	kfree(table);
}

static void free_backing(struct mover *mover)
{
	unsigned int i, n;

	for (n = 0; n < 2; n++) {
		for (i = 0; mover->backing[n] && i < mover->pages; i++)
			if (mover->backing[n][i])
				__free_page(mover->backing[n][i]);
		kvfree(mover->backing[n]);
	}
	kfree(mover);
}

static void mover_release(struct dma_buf *dmabuf)
{
	struct mover *mover = dmabuf->priv;

	/* A held move; any other counts the dma-buf until it is done. */
	finish(mover, -ECANCELED);
	free_backing(mover);
}

static vm_fault_t mover_fault(struct vm_fault *fault)
{
	struct mover *mover = fault->vma->vm_private_data;
	struct dma_resv *resv = mover->dmabuf->resv;
	vm_fault_t result;
	struct page *page;

	if (fault->pgoff >= mover->pages)
		return VM_FAULT_SIGBUS;
	for (;;) {
		/* Interrupted: back to user space, for the signal, and here again. */
		if (dma_resv_wait_timeout(resv, DMA_RESV_USAGE_KERNEL, true, MAX_SCHEDULE_TIMEOUT) <
		    0)
			return VM_FAULT_NOPAGE;
		if (dma_resv_lock_interruptible(resv, NULL))
			return VM_FAULT_NOPAGE;
		if (dma_resv_test_signaled(resv, DMA_RESV_USAGE_KERNEL))
			break;
		dma_resv_unlock(resv);
	}
	/* Under the lock: a move takes the entry away after this, or comes before. */
	page = mover->backing[mover->current_backing][fault->pgoff];
	result = vmf_insert_pfn(fault->vma, fault->address, page_to_pfn(page));
	dma_resv_unlock(resv);
	return result;
}

static const struct vm_operations_struct vm_ops = {.fault = mover_fault};

static int mover_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	vma->vm_ops = &vm_ops;
	vma->vm_private_data = dmabuf->priv;
	vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	return 0;
}

static const struct dma_buf_ops mover_ops = {
	.pin = mover_pin,
	.unpin = mover_unpin,
	.map_dma_buf = mover_map,
	.unmap_dma_buf = mover_unmap,
	.release = mover_release,
	.mmap = mover_mmap,
};

static int create(unsigned long bytes)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct mover *mover;
	unsigned int i, n;
	int fd;

	if (!bytes || !PAGE_ALIGNED(bytes) || bytes >> PAGE_SHIFT > MAX_PAGES)
		return -EINVAL;
	mover = kzalloc(sizeof(*mover), GFP_KERNEL);
	if (!mover)
		return -ENOMEM;
	mutex_init(&mover->lock);
	INIT_DELAYED_WORK(&mover->work, work);
	mover->pages = bytes >> PAGE_SHIFT;
	for (n = 0; n < 2; n++) {
		mover->backing[n] = kvcalloc(mover->pages, sizeof(struct page *), GFP_KERNEL);
		for (i = 0; mover->backing[n] && i < mover->pages; i++) {
			mover->backing[n][i] = alloc_page(GFP_USER | __GFP_ZERO);
			if (!mover->backing[n][i])
				break;
			if (n == 1)
				fill(mover->backing[n][i], POISON);
		}
		if (i < mover->pages || !mover->backing[n]) {
			free_backing(mover);
			return -ENOMEM;
		}
	}
	info.ops = &mover_ops;
	info.size = bytes;
	info.flags = O_RDWR | O_CLOEXEC;
	info.priv = mover;
	mover->dmabuf = dma_buf_export(&info);
	if (IS_ERR(mover->dmabuf)) {
		int err = PTR_ERR(mover->dmabuf);

		free_backing(mover);
		return err;
	}
	fd = dma_buf_fd(mover->dmabuf, O_CLOEXEC);
	if (fd < 0)
		dma_buf_put(mover->dmabuf);
	return fd;
}

static int move_locked(struct mover *mover, unsigned int delay, int error, bool hold)
{
	struct dma_resv *resv = mover->dmabuf->resv;
	struct mover_fence *fence;
	long left;
	int err;

	if (mover->pins)
		return -EBUSY;
	err = dma_resv_reserve_fences(resv, 1);
	if (err)
		return err;
	dma_buf_invalidate_mappings(mover->dmabuf);
	unmap_mapping_range(mover->dmabuf->file->f_mapping, 0, 0, 1);
	/* What importers have said they are still at. */
	left = dma_resv_wait_timeout(resv, DMA_RESV_USAGE_BOOKKEEP, true, WAIT);
	if (left <= 0)
		return left ? (int)left : -ETIME;
	fence = new_fence();
	if (!fence)
		return -ENOMEM;
	dma_resv_add_fence(resv, &fence->base, DMA_RESV_USAGE_KERNEL);
	mutex_lock(&mover->lock);
	mover->current_backing = !mover->current_backing;
	mover->moves++;
	mover->fence = fence;
	mover->error = error;
	mover->held = hold;
	mutex_unlock(&mover->lock);
	if (!hold)
		start(mover, delay);
	return 0;
}

static int move(struct mover *mover, unsigned int delay, int error, bool hold)
{
	struct dma_resv *resv = mover->dmabuf->resv;
	long left;
	int err;

	for (;;) {
		if (READ_ONCE(mover->held))
			return -EALREADY;
		left = dma_resv_wait_timeout(resv, DMA_RESV_USAGE_KERNEL, true, WAIT);
		if (left <= 0)
			return left ? (int)left : -ETIME;
		err = dma_resv_lock_interruptible(resv, NULL);
		if (err)
			return err;
		if (dma_resv_test_signaled(resv, DMA_RESV_USAGE_KERNEL))
			break;
		dma_resv_unlock(resv);
	}
	err = move_locked(mover, delay, error, hold);
	dma_resv_unlock(resv);
	return err;
}

static int release_held(struct mover *mover)
{
	int err = -EINVAL;

	mutex_lock(&mover->lock);
	if (mover->held) {
		mover->held = false;
		start(mover, 0);
		err = 0;
	}
	mutex_unlock(&mover->lock);
	return err;
}

static int inform(struct mover *mover, char *answer, size_t size)
{
	struct dma_resv *resv = mover->dmabuf->resv;
	unsigned long stale = 0;
	unsigned int i, n;
	int err;

	err = dma_resv_lock_interruptible(resv, NULL);
	if (err)
		return err;
	mutex_lock(&mover->lock);
	for (i = 0; !mover->fence && i < mover->pages; i++) {
		u8 *bytes = kmap_local_page(mover->backing[!mover->current_backing][i]);

		for (n = 0; n < PAGE_SIZE; n++)
			stale += bytes[n] != POISON;
		kunmap_local(bytes);
		cond_resched();
	}
	scnprintf(answer, size, "%llu %u %u %lu\n", mover->moves, mover->pins, !!mover->fence,
		  stale);
	mutex_unlock(&mover->lock);
	dma_resv_unlock(resv);
	return 0;
}

/* An open file: its last answer, and what it has pinned. */
struct session {
	struct mutex lock;
	char answer[96];
	struct dma_buf_attachment *pinned;
};

static struct miscdevice device;

/* It never maps, so it has nothing to unmap. */
static void ignore(struct dma_buf_attachment *attach)
{
}

static const struct dma_buf_attach_ops pin_ops = {.invalidate_mappings = ignore};

static int pin(struct session *session, struct dma_buf *dmabuf)
{
	struct dma_buf_attachment *attach;
	int err;

	if (session->pinned)
		return -EBUSY;
	attach = dma_buf_dynamic_attach(dmabuf, device.this_device, &pin_ops, NULL);
	if (IS_ERR(attach))
		return PTR_ERR(attach);
	dma_resv_lock(dmabuf->resv, NULL);
	err = dma_buf_pin(attach);
	dma_resv_unlock(dmabuf->resv);
	if (err) {
		dma_buf_detach(dmabuf, attach);
		return err;
	}
	get_dma_buf(dmabuf);
	session->pinned = attach;
	return 0;
}

static void unpin(struct session *session)
{
	struct dma_buf_attachment *attach = session->pinned;
	struct dma_buf *dmabuf;

	if (!attach)
		return;
	dmabuf = attach->dmabuf;
	dma_resv_lock(dmabuf->resv, NULL);
	dma_buf_unpin(attach);
	dma_resv_unlock(dmabuf->resv);
	dma_buf_detach(dmabuf, attach);
	dma_buf_put(dmabuf);
}

static int on_buffer(char *command, struct session *session)
{
	char verb[16] = "", how[16] = "";
	unsigned int delay = 0;
	struct dma_buf *dmabuf;
	struct mover *mover;
	int fd, words, err;

	words = sscanf(command, "%15s %d %u %15s", verb, &fd, &delay, how);
	if (words < 2)
		return -EINVAL;
	dmabuf = dma_buf_get(fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	err = -EINVAL;
	if (dmabuf->ops != &mover_ops)
		goto out;
	mover = dmabuf->priv;
	if (!strcmp(verb, "move") && words >= 3 && delay <= 3600000 &&
	    (words == 3 || !strcmp(how, "fail") || !strcmp(how, "hold"))) {
		err = move(mover, delay, strcmp(how, "fail") ? 0 : -EIO, !strcmp(how, "hold"));
		if (!err)
			scnprintf(session->answer, sizeof(session->answer), "%llu\n",
				  READ_ONCE(mover->moves));
	} else if (!strcmp(verb, "release") && words == 2) {
		err = release_held(mover);
	} else if (!strcmp(verb, "pin") && words == 2) {
		err = pin(session, dmabuf);
	} else if (!strcmp(verb, "info") && words == 2) {
		err = inform(mover, session->answer, sizeof(session->answer));
	}
out:
	dma_buf_put(dmabuf);
	return err;
}

static ssize_t mover_write(struct file *file, const char __user *buffer, size_t count,
			   loff_t *position)
{
	struct session *session = file->private_data;
	unsigned long bytes;
	char command[64];
	int err;

	if (count >= sizeof(command))
		return -EINVAL;
	if (copy_from_user(command, buffer, count))
		return -EFAULT;
	command[count] = '\0';
	if (mutex_lock_interruptible(&session->lock))
		return -ERESTARTSYS;
	session->answer[0] = '\0';
	if (sscanf(command, "create %lu", &bytes) == 1) {
		err = create(bytes);
		if (err >= 0) {
			scnprintf(session->answer, sizeof(session->answer), "%d\n", err);
			err = 0;
		}
	} else {
		err = on_buffer(command, session);
	}
	mutex_unlock(&session->lock);
	*position = 0; /* of the answer */
	return err ? err : count;
}

static ssize_t mover_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct session *session = file->private_data;
	ssize_t done;

	if (mutex_lock_interruptible(&session->lock))
		return -ERESTARTSYS;
	done = simple_read_from_buffer(buffer, count, position, session->answer,
				       strlen(session->answer));
	mutex_unlock(&session->lock);
	return done;
}

static int mover_open(struct inode *inode, struct file *file)
{
	struct session *session = kzalloc(sizeof(*session), GFP_KERNEL);

	if (!session)
		return -ENOMEM;
	mutex_init(&session->lock);
	file->private_data = session;
	return 0;
}

static int mover_close(struct inode *inode, struct file *file)
{
	struct session *session = file->private_data;

	unpin(session);
	kfree(session);
	return 0;
}

static const struct file_operations file_ops = {
	.owner = THIS_MODULE,
	.open = mover_open,
	.release = mover_close,
	.read = mover_read,
	.write = mover_write,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "p2pdma_mover",
	.fops = &file_ops,
	.mode = 0600,
};

static int __init mover_init(void)
{
	fence_context = dma_fence_context_alloc(1);
	return misc_register(&device);
}

static void __exit mover_exit(void)
{
	misc_deregister(&device);
	/* Fences are freed after a grace period. */
	rcu_barrier();
}

module_init(mover_init);
module_exit(mover_exit);

MODULE_DESCRIPTION("Exporter for tests whose dma-bufs move");
MODULE_IMPORT_NS("DMA_BUF");
MODULE_LICENSE("GPL");
